#include "pool/free_extents.h"

#include <algorithm>
#include <bit>

namespace duplex::pool {
namespace {

constexpr uint32_t kWordBits = 64;
uint64_t bit(uint32_t at) { return uint64_t{1} << at % kWordBits; }

}  // namespace

void FreeExtents::resize(uint32_t extents) {
  ASSERT(extents >= size_);
  size_ = extents;
  words_.resize(divide_up(extents, kWordBits));
}

bool FreeExtents::contains(PhysicalExtent pe) const {
  ASSERT(pe.value() < size_);
  return (words_[pe.value() / kWordBits] & bit(pe.value())) != 0;
}

void FreeExtents::add(PhysicalExtent pe) {
  ASSERT(!contains(pe));
  words_[pe.value() / kWordBits] |= bit(pe.value());
  ++count_;
}

void FreeExtents::remove(PhysicalExtent pe) {
  ASSERT(contains(pe));
  words_[pe.value() / kWordBits] &= ~bit(pe.value());
  --count_;
}

std::optional<PhysicalExtent> FreeExtents::take(std::optional<PhysicalExtent> wish) {
  if (count_ == 0) return std::nullopt;
  std::optional<uint32_t> found;
  if (wish && wish->value() < size_ && contains(*wish)) found = wish->value();
  if (!found) found = find(cursor_, size_);
  if (!found) found = find(0, cursor_);
  ASSERT(found.has_value());
  remove(PhysicalExtent(*found));
  cursor_ = *found + 1 < size_ ? *found + 1 : 0;
  return PhysicalExtent(*found);
}

std::optional<uint32_t> FreeExtents::find(uint32_t from, uint32_t to) const {
  for (uint32_t at = from; at < to;) {
    const uint64_t word = words_[at / kWordBits] & ~(bit(at) - 1);
    if (word != 0) {
      const auto found = static_cast<uint32_t>(round_down(at, kWordBits)) +
                         static_cast<uint32_t>(std::countr_zero(word));
      return found < to ? std::optional(found) : std::nullopt;
    }
    const uint64_t next = round_down(at, kWordBits) + kWordBits;
    if (next >= to) return std::nullopt;
    at = static_cast<uint32_t>(next);
  }
  return std::nullopt;
}

}  // namespace duplex::pool
