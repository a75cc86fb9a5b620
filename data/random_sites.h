// Names for the streams of random numbers of this folder: the `site` of a RandomKey. 0xDA______ is
// kept for them.
#pragma once

#include <cstdint>

namespace infini {

inline constexpr std::uint32_t kSitePasskeyRow =
    0xDA000001;  // (seed, step, row): a training prompt
inline constexpr std::uint32_t kSitePasskeyLength =
    0xDA000002;  // (seed, step): the row length of a step
inline constexpr std::uint32_t kSitePasskeyEvaluation =
    0xDA000003;                                                 // (seed, length, position, index)
inline constexpr std::uint32_t kSiteCropOffset = 0xDA000004;    // (seed, epoch, document)
inline constexpr std::uint32_t kSiteCropOrder = 0xDA000005;     // (seed, epoch): the order of rows
inline constexpr std::uint32_t kSiteLaneOrder = 0xDA000006;     // (seed, epoch): documents in lanes
inline constexpr std::uint32_t kSiteExampleOrder = 0xDA000007;  // (seed, epoch): of examples
inline constexpr std::uint32_t kSiteExampleSteps =
    0xDA000008;  // (seed, epoch), window: the order of steps whose examples went by length

}  // namespace infini
