#include "tensor/random.h"
#include "trainer/config_reader.h"

struct Config {
  int threads = 1;
  template <class Visitor>
  void visit(Visitor& field) {
    field("threads", threads, "CPU threads");
  }
};

int main() {
  const auto config = infini::read_config_text<Config>("threads: 3", "main.cpp");
  return config.threads == 3 && infini::RandomKey{}.uniform(0) < 1 ? 0 : 1;
}
