// One launch for many parameters: a kernel takes a table of them among its own parameters, so that
// nothing is uploaded, and each block looks up the entry it works on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/ops/cuda_math.cuh"

namespace infini {

// A kernel takes 32764 bytes of parameters; this leaves some for what all entries share.
template <class Entry>
struct Table {
  static constexpr std::size_t kCapacity = 32000 / sizeof(Entry);
  int count = 0;
  Entry entries[kCapacity] = {};
};

// Calls launch(updates) for as many updates at a time as a Table<Entry> holds.
template <class Entry, class Updates, class Launch>
void for_each_table(Updates updates, Launch&& launch) {
  constexpr std::size_t kCapacity = Table<Entry>::kCapacity;
  for (; updates.size() > kCapacity; updates = updates.subspan(kCapacity))
    launch(updates.first(kCapacity));
  launch(updates);
}

// The number of the entry that block `block` works on, where `first` of an entry is its first
// block: the last that begins there or before.
template <class Entry>
__device__ __forceinline__ int entry_of_block(const Table<Entry>& table, unsigned Entry::*first,
                                              unsigned block = blockIdx.x) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.entries[middle].*first <= block)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// Whether data can be read in packs of n elements.
template <int n, class N>
bool holds_packs(const N* data) {
  return reinterpret_cast<std::uintptr_t>(data) % alignof(Pack<N, n>) == 0;
}

// A pack of elements that no other thread reads and that are not read again soon. One access for
// certain: the compiler does not always join the stores of store_pack.
template <int n, class T>
__device__ __forceinline__ void stream_in(const T* from, T (&values)[n]) {
  if constexpr (n == 1) {
    values[0] = __ldcs(from);
  } else {
    static_assert(n == kPackSize<T>);
    const uint4 word = __ldcs(reinterpret_cast<const uint4*>(from));
    memcpy(values, &word, sizeof(word));
  }
}
template <int n, class T>
__device__ __forceinline__ void stream_out(T* to, const T (&values)[n]) {
  if constexpr (n == 1) {
    __stcs(to, values[0]);
  } else {
    static_assert(n == kPackSize<T>);
    uint4 word;
    memcpy(&word, values, sizeof(word));
    __stcs(reinterpret_cast<uint4*>(to), word);
  }
}

// Writes n masters as bf16, by one access.
template <int n, class T>
__device__ __forceinline__ void store_value(__nv_bfloat16* to, const T (&x)[n]) {
  static_assert(n == 1 || n == 2 || n == 4);
  using Word = std::conditional_t<n == 4, std::uint64_t,
                                  std::conditional_t<n == 2, std::uint32_t, std::uint16_t>>;
  Word word = 0;
#pragma unroll
  for (int i = 0; i < n; ++i)
    word |= Word{__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(x[i])))} << (16 * i);
  *reinterpret_cast<Word*>(to) = word;
}

}  // namespace infini
