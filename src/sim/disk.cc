#include "sim/disk.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace duplex::sim {
namespace {

// Calls part(page, offset in page, offset in range, length) for each page a range touches.
template <class Part>
void for_pages(uint64_t offset, uint64_t length, Part part) {
  uint64_t done = 0;
  while (done < length) {
    const uint64_t at = offset + done;
    const uint64_t inside = at % kPage;
    const uint64_t count = std::min(kPage - inside, length - done);
    part(at / kPage, inside, done, count);
    done += count;
  }
}

std::unique_ptr<Image::Page> copy_of(const Image::Page* page) {
  return page == nullptr ? nullptr : std::make_unique<Image::Page>(*page);
}

}  // namespace

void Image::read(uint64_t offset, std::span<std::byte> into) const {
  for_pages(offset, into.size(),
            [&](uint64_t page, uint64_t inside, uint64_t done, uint64_t count) {
              if (const Page* content = find(page)) {
                std::memcpy(into.data() + done, content->data() + inside, count);
              } else {
                std::memset(into.data() + done, 0, count);
              }
            });
}

void Image::write(uint64_t offset, std::span<const std::byte> from) {
  for_pages(offset, from.size(),
            [&](uint64_t page, uint64_t inside, uint64_t done, uint64_t count) {
              auto& content = pages_[page];
              if (!content) content = std::make_unique<Page>();
              std::memcpy(content->data() + inside, from.data() + done, count);
            });
}

void Image::zero(uint64_t offset, uint64_t length) {
  for (const uint64_t page : present(offset / kPage, (offset + length + kPage - 1) / kPage)) {
    const uint64_t from = std::max(offset, page * kPage);
    const uint64_t to = std::min(offset + length, (page + 1) * kPage);
    if (to - from == kPage) {
      pages_.erase(page);
    } else {
      std::memset(pages_[page]->data() + (from - page * kPage), 0, to - from);
    }
  }
}

void Image::put(uint64_t page, std::unique_ptr<Page> content) {
  if (content) {
    pages_[page] = std::move(content);
  } else {
    pages_.erase(page);
  }
}

std::vector<uint64_t> Image::present(uint64_t first, uint64_t end) const {
  std::vector<uint64_t> found;
  for (auto it = pages_.lower_bound(first); it != pages_.end() && it->first < end; ++it)
    found.push_back(it->first);
  return found;
}

uint64_t DiskFile::begin_write(uint64_t offset, std::span<const std::byte> from) {
  changes_.push_back({next_change_, offset, from.size(), {from.begin(), from.end()}});
  return next_change_++;
}

uint64_t DiskFile::begin_zero(uint64_t offset, uint64_t length) {
  changes_.push_back({next_change_, offset, length, {}});
  return next_change_++;
}

DiskFile::Change* DiskFile::find(uint64_t number) {
  const auto it = std::lower_bound(changes_.begin(), changes_.end(), number,
                                   [](const Change& c, uint64_t n) { return c.number < n; });
  return it != changes_.end() && it->number == number ? &*it : nullptr;
}

// Keeps the durable content of the pages a change is about to alter.
void DiskFile::remember(uint64_t offset, uint64_t length) {
  const uint64_t first = offset / kPage;
  const uint64_t end = (offset + length + kPage - 1) / kPage;
  if (end - first > 1024) {  // a long zeroing: only pages that hold something change
    for (const uint64_t page : current_.present(first, end)) {
      if (!durable_.contains(page)) durable_[page] = copy_of(current_.find(page));
    }
    return;
  }
  for (uint64_t page = first; page < end; ++page) {
    if (!durable_.contains(page)) durable_[page] = copy_of(current_.find(page));
  }
}

void DiskFile::apply_part(Image& image, const Change& change, uint64_t from, uint64_t to) const {
  if (change.data.empty()) {
    image.zero(change.offset + from, to - from);
  } else {
    image.write(change.offset + from, std::span(change.data).subspan(from, to - from));
  }
}

void DiskFile::apply(Image& image, const Change& change) const {
  apply_part(image, change, 0, change.length);
}

// Some of the 512-byte units; long zeroings are torn at a few places only.
void DiskFile::apply_torn(Image& image, const Change& change, Dice& dice) const {
  const uint64_t unit =
      change.length > 64 * kPage ? change.length / 16 / kTornUnit * kTornUnit : kTornUnit;
  uint64_t from = 0;
  while (from < change.length) {
    const uint64_t at = change.offset + from;
    const uint64_t to = std::min(change.length, from + unit - at % kTornUnit);
    if (dice.chance(0.5)) apply_part(image, change, from, to);
    from = to;
  }
}

void DiskFile::end_change(uint64_t number, bool applied) {
  Change* change = find(number);
  if (change == nullptr) return;
  if (!applied) {
    changes_.erase(changes_.begin() + (change - changes_.data()));
    return;
  }
  remember(change->offset, change->length);
  apply(current_, *change);
  size_ = std::max(size_, change->data.empty() ? size_ : change->offset + change->length);
  change->ended = true;
  change->ended_at = next_change_++;
}

void DiskFile::tear_change(uint64_t number, Dice& dice) {
  Change* change = find(number);
  if (change == nullptr) return;
  remember(change->offset, change->length);
  apply_torn(current_, *change, dice);
  // What of it lasts is as uncertain as with any unflushed change; keep it as one that ended. But
  // what readers have not seen of it is gone: a flush makes durable what they find, and no loss
  // after it may bring up more.
  change->data.resize(change->length);
  current_.read(change->offset, change->data);
  change->ended = true;
  change->ended_at = next_change_++;
}

void DiskFile::flush(uint64_t point) {
  const auto covered = [&](const Change& change) {
    return change.ended && change.ended_at < point;
  };
  if (std::all_of(changes_.begin(), changes_.end(), covered)) {
    changes_.clear();
    durable_.clear();
    entry_durable = true;
    return;
  }
  // The durable image takes the covered changes in the order they ended.
  std::vector<Change*> order;
  for (Change& change : changes_) {
    if (covered(change)) order.push_back(&change);
  }
  std::sort(order.begin(), order.end(),
            [](const Change* a, const Change* b) { return a->ended_at < b->ended_at; });
  Image base;
  for (const auto& [page, content] : durable_) base.put(page, copy_of(content.get()));
  for (const Change* change : order) {
    const uint64_t first = change->offset / kPage;
    const uint64_t end = (change->offset + change->length + kPage - 1) / kPage;
    for (auto it = durable_.lower_bound(first); it != durable_.end() && it->first < end; ++it) {
      const uint64_t from = std::max(change->offset, it->first * kPage);
      const uint64_t to = std::min(change->offset + change->length, (it->first + 1) * kPage);
      apply_part(base, *change, from - change->offset, to - change->offset);
    }
  }
  for (auto& [page, content] : durable_) content = copy_of(base.find(page));
  std::erase_if(changes_, covered);
  entry_durable = true;
}

void DiskFile::truncate(uint64_t size) {
  if (size < size_) {
    current_.zero(size, size_ - size);
    for (auto& [page, content] : durable_) {
      if (page * kPage >= size) content = nullptr;
    }
    std::erase_if(changes_,
                  [&](const Change& change) { return change.ended && change.offset >= size; });
  }
  size_ = size;
}

void DiskFile::plant(uint64_t offset, std::span<const std::byte> bytes) {
  ASSERT(changes_.empty());
  current_.write(offset, bytes);
  size_ = std::max(size_, offset + bytes.size());
}

void DiskFile::back_to_durable() {
  for (auto& [page, content] : durable_) current_.put(page, std::move(content));
  durable_.clear();
}

// Of the unflushed changes, in random order, each is applied, lost or torn.
Toll DiskFile::survive(Dice& dice, bool in_flight_too) {
  back_to_durable();
  Toll toll;
  std::vector<Change> rest;
  std::vector<Change> shuffled;
  for (Change& change : changes_) {
    (change.ended || in_flight_too ? shuffled : rest).push_back(std::move(change));
  }
  // Some cuts lose everything, some nothing: both ends are where bugs live.
  const double kept = static_cast<double>(dice.below(5)) / 4;
  while (!shuffled.empty()) {
    const size_t pick = dice.below(shuffled.size());
    std::swap(shuffled[pick], shuffled.back());
    const Change& change = shuffled.back();
    if (dice.chance(kept)) {
      apply(current_, change);
    } else if (dice.chance(0.3)) {
      apply_torn(current_, change, dice);
      ++toll.torn;
    } else {
      ++toll.lost;
    }
    shuffled.pop_back();
  }
  changes_ = std::move(rest);
  return toll;
}

Toll DiskFile::power_cut(Dice& dice) {
  locked_by = nullptr;
  return survive(dice, true);
}

void DiskFile::kill(Dice& dice) {
  for (Change& change : changes_) {
    if (change.ended || !dice.chance(0.5)) continue;
    remember(change.offset, change.length);
    apply(current_, change);
    change.ended = true;
    change.ended_at = next_change_++;
  }
  std::erase_if(changes_, [](const Change& change) { return !change.ended; });
  locked_by = nullptr;
}

Toll DiskFile::lose_cache(Dice& dice) { return survive(dice, false); }

DiskFile* Disk::find(const std::string& path) {
  const auto it = files_.find(path);
  return it == files_.end() ? nullptr : it->second.get();
}

DiskFile& Disk::create(const std::string& path, uint64_t size, bool block_device) {
  auto file = std::make_unique<DiskFile>(path, size, block_device);
  file->entry_durable = block_device;
  auto& place = files_[path];
  if (place) removed_.push_back(std::move(place));
  place = std::move(file);
  return *place;
}

void Disk::remove(const std::string& path) {
  const auto it = files_.find(path);
  if (it == files_.end()) return;
  it->second->exists = false;
  removed_.push_back(std::move(it->second));
  files_.erase(it);
}

void Disk::rename(const std::string& from, const std::string& to) {
  const auto it = files_.find(from);
  ASSERT(it != files_.end());
  auto file = std::move(it->second);
  files_.erase(it);
  remove(to);
  files_[to] = std::move(file);
}

void Disk::sync_directory(const std::string& path) {
  for (auto& [name, file] : files_) {
    if (name.starts_with(path)) file->entry_durable = true;
  }
}

bool Disk::is_directory(const std::string& path) const {
  return std::find(directories_.begin(), directories_.end(), path) != directories_.end();
}

Toll Disk::power_cut(Dice& dice) {
  Toll toll;
  for (auto it = files_.begin(); it != files_.end();) {
    if (!it->second->entry_durable && dice.chance(0.5)) {
      removed_.push_back(std::move(it->second));
      it = files_.erase(it);
      continue;
    }
    it->second->entry_durable = true;
    toll.add(it->second->power_cut(dice));
    ++it;
  }
  return toll;
}

void Disk::kill(Dice& dice) {
  for (auto& [path, file] : files_) file->kill(dice);
}

}  // namespace duplex::sim
