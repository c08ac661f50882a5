#include "sim/host.h"

namespace duplex::simtest {
namespace {

Outcome outcome_of(int nbd) {
  if (nbd == 0) return Outcome::kDone;
  return nbd == NbdClient::kGone ? Outcome::kGone : Outcome::kError;
}

}  // namespace

Outcome DirectHost::told(const Result<void>& result) {
  if (result) return Outcome::kDone;
  had_fault_ |= result.error().code() != Code::kNoSpace;
  return Outcome::kError;
}

rt::Task<bool> DirectHost::open(std::string name) {
  auto opened = exports_.open(name, "simulated host", [this] { is_cut_off_ = true; });
  if (!opened) co_return false;
  open_ = std::move(*opened);
  co_return true;
}
rt::Task<Outcome> DirectHost::read(uint64_t offset, std::span<std::byte> into) {
  if (is_cut_off_) co_return Outcome::kGone;
  co_return told(co_await open_->volume().read(offset, into));
}
rt::Task<Outcome> DirectHost::write(uint64_t offset, std::span<const std::byte> from, bool fua) {
  if (is_cut_off_) co_return Outcome::kGone;
  co_return told(co_await open_->volume().write(offset, from, fua));
}
rt::Task<Outcome> DirectHost::zero(uint64_t offset, uint64_t length, bool fua, bool no_hole) {
  if (is_cut_off_) co_return Outcome::kGone;
  co_return told(co_await open_->volume().zero({offset, length}, {.fua = fua, .no_hole = no_hole}));
}
rt::Task<Outcome> DirectHost::trim(uint64_t offset, uint64_t length) {
  if (is_cut_off_) co_return Outcome::kGone;
  co_return told(co_await open_->volume().trim({offset, length}, false));
}
rt::Task<Outcome> DirectHost::flush() {
  if (is_cut_off_) co_return Outcome::kGone;
  co_return told(co_await open_->volume().flush());
}
rt::Task<> DirectHost::close() {
  co_await rt::hop(control_);
  if (open_) exports_.close(std::move(open_));
}

rt::Task<Outcome> NbdHost::read(uint64_t offset, std::span<std::byte> into) {
  co_return outcome_of(co_await client_.read(offset, into));
}
rt::Task<Outcome> NbdHost::write(uint64_t offset, std::span<const std::byte> from, bool fua) {
  co_return outcome_of(co_await client_.write(offset, from, fua));
}
rt::Task<Outcome> NbdHost::zero(uint64_t offset, uint64_t length, bool fua, bool no_hole) {
  co_return outcome_of(co_await client_.zero(offset, static_cast<uint32_t>(length), fua, no_hole));
}
rt::Task<Outcome> NbdHost::trim(uint64_t offset, uint64_t length) {
  co_return outcome_of(co_await client_.trim(offset, static_cast<uint32_t>(length)));
}
rt::Task<Outcome> NbdHost::flush() { co_return outcome_of(co_await client_.flush()); }
rt::Task<> NbdHost::close() { return client_.close(); }

}  // namespace duplex::simtest
