#include "copy/way.h"

#include <utility>

namespace duplex::copy {
namespace {

using volume::TargetLeg;
using volume::VolumeImpl;

class Forward final : public Way {
 public:
  Forward(VolumeImpl& source, TargetLeg& leg, std::function<Epoch()> root)
      : source_(source), leg_(leg), root_(std::move(root)) {}
  volume::MapId map_id() const override { return leg_.bits_id(); }
  const volume::ChangeMap& map() const override { return leg_.bits(); }
  bool is_open() const override { return leg_.mode() == TargetLeg::Mode::kSendWhereClear; }
  ByteRange next(uint64_t from) const override {
    return source_.next_copy(leg_, from, VolumeImpl::kHoleCopyBytes);
  }
  rt::Task<Result<VolumeImpl::CopyStep>> step(ByteRange run) override {
    return source_.copy_step(leg_, run.offset, root_(), run.length);
  }
  volume::Debtor& debtor() override { return leg_; }
  const char* act() const override { return "read"; }

 private:
  VolumeImpl& source_;
  TargetLeg& leg_;
  const std::function<Epoch()> root_;
};

class Back final : public Way {
 public:
  Back(VolumeImpl& source, TargetLeg& leg) : source_(source), leg_(leg) {}
  volume::MapId map_id() const override { return leg_.missing_id(); }
  const volume::ChangeMap& map() const override { return leg_.missing(); }
  bool is_open() const override { return true; }
  ByteRange next(uint64_t from) const override {
    return source_.next_restore(leg_, from, VolumeImpl::kCopyBytes);
  }
  rt::Task<Result<VolumeImpl::CopyStep>> step(ByteRange run) override {
    return source_.restore_step(leg_, run.offset, run.length);
  }
  volume::Debtor& debtor() override { return source_.own_debtor(); }
  const char* act() const override { return "brought back"; }

 private:
  VolumeImpl& source_;
  TargetLeg& leg_;
};

}  // namespace

std::unique_ptr<Way> way_forward(VolumeImpl& source, TargetLeg& leg, std::function<Epoch()> root) {
  return std::make_unique<Forward>(source, leg, std::move(root));
}

std::unique_ptr<Way> way_back(VolumeImpl& source, TargetLeg& leg) {
  return std::make_unique<Back>(source, leg);
}

}  // namespace duplex::copy
