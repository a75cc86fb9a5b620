// What one card and its links reach in a training step, as measured: what a plan predicts from.
#pragma once

#include <string>

#include "tensor/error.h"

namespace infini {

// The defaults are those of experiments/performance/h200.yaml, where each is said to come from.
struct CardFigures {
  std::string card = "NVIDIA H200, 700 W";
  std::string date = "2026-11-22";
  double memory_gibibytes = 139.8;
  double context_gibibytes = 1;
  int multiprocessors = 132;
  double product_teraflops = 665;
  double attention_teraflops = 437;
  double attention_grad_teraflops = 366;
  double elementwise_terabytes = 4;
  double memory_terabytes = 2.4;
  double overlap_terabytes = 1.5;
  double affine_scan_terabytes = 0.7;
  double adamw_terabytes = 3.6;
  double adafactor_terabytes = 3.24;
  double kernel_microseconds = 2;
  double nvlink_gigabytes = 360;
  double nvlink_microseconds = 2;
  double network_gigabytes = 45;
  double network_microseconds = 8;
  int exchange_multiprocessors = 16;

  template <class Visitor>
  void visit(Visitor& field) {
    field("card", card, "which card, at which power limit");
    field("date", date, "when the figures were taken");
    field("memory_gibibytes", memory_gibibytes, "memory that a process can have");
    field("context_gibibytes", context_gibibytes,
          "of it, what the driver, the libraries and their communicators keep");
    field("multiprocessors", multiprocessors, "tiles of products that run at a time");
    field(
        "product_teraflops", product_teraflops,
        "bf16 products in a step, 10^12 operations a second, while all multiprocessors have work");
    field("attention_teraflops", attention_teraflops,
          "local attention forward, causal work alone counted");
    field("attention_grad_teraflops", attention_grad_teraflops,
          "its backward pass, counted as five products for the two of the forward pass");
    field("elementwise_terabytes", elementwise_terabytes,
          "norms, rotation, activations and losses, 10^12 bytes a second");
    field("memory_terabytes", memory_terabytes, "reads and sums of the compressive memory");
    field("overlap_terabytes", overlap_terabytes, "what the delta rule takes off");
    field("affine_scan_terabytes", affine_scan_terabytes, "the delta rule's scan over segments");
    field("adamw_terabytes", adamw_terabytes, "an update by AdamW");
    field("adafactor_terabytes", adafactor_terabytes, "an update by Adafactor");
    field("kernel_microseconds", kernel_microseconds, "from the end of a kernel to the next one");
    field("nvlink_gigabytes", nvlink_gigabytes,
          "what a GPU sends to others of its node, 10^9 bytes a second");
    field("nvlink_microseconds", nvlink_microseconds, "a hop of an exchange within a node");
    field("network_gigabytes", network_gigabytes, "what a GPU sends to other nodes");
    field("network_microseconds", network_microseconds, "a hop of an exchange between nodes");
    field("exchange_multiprocessors", exchange_multiprocessors,
          "multiprocessors that an exchange takes from what it hides behind");
  }
  void validate() const {
    for (const double rate :
         {memory_gibibytes, product_teraflops, attention_teraflops, attention_grad_teraflops,
          elementwise_terabytes, memory_terabytes, overlap_terabytes, affine_scan_terabytes,
          adamw_terabytes, adafactor_terabytes, nvlink_gigabytes, network_gigabytes})
      check<ConfigError>(rate > 0, "figures: rates and the memory must be positive, got ", rate);
    for (const double cost :
         {context_gibibytes, kernel_microseconds, nvlink_microseconds, network_microseconds})
      check<ConfigError>(cost >= 0, "figures: times and the context must not be negative, got ",
                         cost);
    check<ConfigError>(multiprocessors > exchange_multiprocessors && exchange_multiprocessors >= 0,
                       "figures: exchanges take ", exchange_multiprocessors, " of ",
                       multiprocessors, " multiprocessors");
  }
};

}  // namespace infini
