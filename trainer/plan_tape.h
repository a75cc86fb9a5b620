// A tape of sizes: what tensor/tape.h keeps and allocates, entry by entry, without the elements.
#pragma once

#include <functional>
#include <vector>

#include "trainer/plan_trace.h"

namespace infini {

class SizeTape;

// A tensor of which only the size is known. Copies share the block, as handles share elements.
struct Sized {
  Trace::Block block;
  SizeTape* tape = nullptr;
  int slot = -1;

  std::int64_t bytes() const { return block ? *block : 0; }
  explicit operator bool() const { return static_cast<bool>(block); }
  Sized unwatched() const { return {.block = block}; }
};

class SizeTape {
 public:
  // The gradients of an entry's inputs; empty where nobody asks. Asking allocates.
  class Gradients {
   public:
    Gradients(SizeTape& tape, const std::vector<Sized>& inputs) : tape_(tape), inputs_(inputs) {}
    Trace::Block of(std::size_t input) const;
    // Whether somebody asks for it, who has the memory ready: that of a parameter that trains.
    bool asks(std::size_t input) const { return inputs_.at(input).tape != nullptr; }
    void hand_on(std::size_t input, const Trace::Block& dy) const;
    struct Renewal {
      Trace::Block stood, sum;
    };
    Renewal renew(std::size_t input) const;

   private:
    SizeTape& tape_;
    const std::vector<Sized>& inputs_;
  };
  using Backward =
      std::function<void(const std::vector<Trace::Block>& doutputs, const Gradients& gradients)>;

  explicit SizeTape(Trace& trace) : trace_(trace) {}
  SizeTape(const SizeTape&) = delete;
  SizeTape& operator=(const SizeTape&) = delete;

  Sized watch(const Sized& value);                                // the tape allocates its gradient
  Sized watch(const Sized& value, const Trace::Block& gradient);  // the caller's gradient
  void seed(const Sized& watched) { target(watched.slot); }
  Trace::Block gradient(const Sized& watched) const { return slots_[watched.slot].gradient; }

  // Records nothing where no input is watched.
  void push(const std::vector<Sized*>& outputs, std::vector<Sized> inputs, Backward backward);
  // Has backward() call action() when everything recorded after this call is done.
  void on_backward(std::function<void()> action);
  void backward();

 private:
  struct Slot {
    Trace::Block gradient;
    std::int64_t bytes = 0;
    bool written = false, external = false;
  };
  struct Entry {
    std::vector<int> outputs;
    std::vector<Sized> inputs;
    Backward backward;
  };

  Trace::Block target(int slot);
  Gradients::Renewal renew(int slot);

  Trace& trace_;
  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
};

}  // namespace infini
