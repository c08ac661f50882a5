#include "volume/window.h"

#include <algorithm>

#include "base/assert.h"

namespace duplex::volume {
namespace {

constexpr size_t kFewestEntries = 32;

}  // namespace

bool Window::add(ByteRange range, Stamp started) {
  each_word(range, [this](HotExtent stretch, uint64_t regions) { add_word(stretch, regions); });
  return started == stamp();
}

void Window::add_word(HotExtent stretch, uint64_t regions) {
  newest_ = now_;
  const uint32_t at = index_.empty() ? 0 : index_[place(stretch)];
  Entry& entry = at != 0 ? entries_[at - 1] : occupy(stretch);
  if (entry.newer.number == now_) {
    entry.newer.regions |= regions;
  } else if (!is_owed(entry.newer)) {
    entry.newer = {now_, regions};
  } else if (!is_owed(entry.older)) {
    entry.older = entry.newer;
    entry.newer = {now_, regions};
  } else if (kind_ == Kind::kExact) {
    between_.push_back({stretch, entry.newer});
    entry.newer = {now_, regions};
  } else {
    entry.newer = {now_, entry.newer.regions | regions};
  }
}

uint64_t Window::word(HotExtent stretch) const {
  if (!owes()) return 0;
  const uint32_t at = index_[place(stretch)];
  return at != 0 ? owed(entries_[at - 1]) : 0;
}

size_t Window::place(HotExtent stretch) const {
  const size_t mask = index_.size() - 1;
  // Neighbours are the common case: multiply by an odd constant with well mixed high bits.
  size_t at = (stretch.value() * 0x9e3779b97f4a7c15) >> 32 & mask;
  while (index_[at] != 0 && entries_[index_[at] - 1].stretch != stretch) at = (at + 1) & mask;
  return at;
}

Window::Entry& Window::occupy(HotExtent stretch) {
  if (entries_.size() == index_.size() / 2) make_room();
  ASSERT(entries_.size() < index_.size() / 2);
  entries_.push_back({.stretch = stretch, .older = {}, .newer = {}});
  index_[place(stretch)] = static_cast<uint32_t>(entries_.size());
  return entries_.back();
}

// Entries that owe nothing go; storage doubles when most of them owe something.
void Window::make_room() {
  std::erase_if(entries_, [this](const Entry& entry) { return owed(entry) == 0; });
  const size_t most = index_.size() / 2;
  if (entries_.size() >= most - most / 4) {
    const size_t next = most == 0 ? kFewestEntries : most * 2;
    entries_.reserve(next);
    index_.resize(next * 2);
  }
  std::fill(index_.begin(), index_.end(), 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    // Not yet in the index, so this is a free place.
    index_[place(entries_[i].stretch)] = static_cast<uint32_t>(i + 1);
  }
}

}  // namespace duplex::volume
