// For tests of the front door: volumes in memory, with delays and failures on demand.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "rt/world.h"
#include "volume/volume.h"

namespace duplex::nbd {

class FakeVolume final : public volume::Volume {
 public:
  FakeVolume(std::string name, uint64_t bytes, rt::Core& core)
      : name_(std::move(name)), data_(bytes), core_(core) {}

  rt::Micros delay = 0;            // of every request
  std::optional<Code> failure;     // of every request
  std::vector<std::string> calls;  // what arrived, in order
  size_t running = 0;
  size_t most_running = 0;

  const std::string& name() const override { return name_; }
  VolumeNumber number() const override { return VolumeNumber(1); }
  uint64_t size_bytes() const override { return data_.size(); }
  rt::Core& core() const override { return core_; }
  volume::VolumeStats stats() const override { return {}; }
  // What is offered as N has changed in N bytes, then not in as many, and so on.
  std::vector<volume::ChangedRun> changed(volume::ContextId id, ByteRange range,
                                          size_t limit) const override {
    std::vector<volume::ChangedRun> runs;
    for (uint64_t at = 0; at < range.length && runs.size() < limit; at += id.value()) {
      runs.push_back({std::min(id.value(), range.length - at), runs.size() % 2 == 0});
    }
    return runs;
  }
  const std::vector<std::byte>& data() const { return data_; }

  rt::Task<Result<void>> read(uint64_t offset, std::span<std::byte> into) override {
    CO_TRY(co_await begin("read", offset, into.size(), false));
    std::copy_n(data_.data() + offset, into.size(), into.data());
    co_return Result<void>();
  }
  rt::Task<Result<void>> write(uint64_t offset, std::span<const std::byte> from,
                               bool fua) override {
    CO_TRY(co_await begin("write", offset, from.size(), fua));
    std::ranges::copy(from, data_.data() + offset);
    co_return Result<void>();
  }
  rt::Task<Result<void>> zero(ByteRange range, ZeroFlags flags) override {
    const char* what = flags.fast ? "zero-fast" : flags.no_hole ? "zero-no-hole" : "zero";
    CO_TRY(co_await begin(what, range.offset, range.length, flags.fua));
    std::fill_n(data_.data() + range.offset, range.length, std::byte{0});
    co_return Result<void>();
  }
  rt::Task<Result<void>> trim(ByteRange range, bool fua) override {
    return begin("trim", range.offset, range.length, fua);
  }
  rt::Task<Result<void>> flush() override { return begin("flush", 0, 0, false); }
  rt::Task<Result<std::vector<volume::StatusRun>>> status(ByteRange range, size_t limit) override {
    CO_TRY(co_await begin("status", range.offset, range.length, false));
    std::vector<volume::StatusRun> runs = {{range.length - range.length / 2, false, false},
                                           {range.length / 2, true, true}};
    runs.resize(std::min(runs.size(), limit));
    co_return runs;
  }

 private:
  rt::Task<Result<void>> begin(const char* what, uint64_t offset, uint64_t length, bool fua) {
    calls.push_back(fmt::format("{} {}+{}{}", what, offset, length, fua ? " fua" : ""));
    most_running = std::max(most_running, ++running);
    if (delay > 0) co_await rt::sleep_for(core_.clock(), delay);
    --running;
    if (failure) co_return fail(*failure);
    co_return Result<void>();
  }
  const std::string name_;
  std::vector<std::byte> data_;
  rt::Core& core_;
};

class FakeExports final : public volume::Exports {
 public:
  FakeVolume& add(const std::string& name, uint64_t bytes, rt::Core& core) {
    auto& place = volumes_[name];
    place = std::make_unique<FakeVolume>(name, bytes, core);
    return *place;
  }
  size_t opens = 0;
  size_t open_now = 0;
  bool read_only = false;
  std::vector<volume::ChangedContext> offered;
  std::optional<Error> refusal;
  std::vector<std::function<void()>> disconnects;

  std::vector<volume::VolumeSummary> list() const override {
    std::vector<volume::VolumeSummary> all;
    for (const auto& [name, volume] : volumes_)
      all.push_back({volume->number(), name, volume->size_bytes(), read_only});
    return all;
  }
  Result<volume::VolumeSummary> find(const std::string& name) const override {
    const auto it = volumes_.find(name);
    if (it == volumes_.end()) return fail(Code::kNoVolume, "there is no volume " + name);
    return volume::VolumeSummary{it->second->number(), name, it->second->size_bytes(), read_only};
  }
  std::vector<volume::ChangedContext> contexts(const std::string& /*name*/) const override {
    return offered;
  }
  Result<std::unique_ptr<volume::OpenVolume>> open(const std::string& name, std::string /*client*/,
                                                   std::function<void()> disconnect) override {
    struct Open final : volume::OpenVolume {
      Open(FakeVolume& v, bool r) : fake(v), ro(r) {}
      volume::Volume& volume() override { return fake; }
      bool read_only() const override { return ro; }
      FakeVolume& fake;
      bool ro;
    };
    const auto it = volumes_.find(name);
    if (it == volumes_.end()) return fail(Code::kNoVolume);
    if (refusal) return std::unexpected(*refusal);
    ++opens;
    ++open_now;
    disconnects.push_back(std::move(disconnect));
    return std::make_unique<Open>(*it->second, read_only);
  }
  void close(std::unique_ptr<volume::OpenVolume> open) override {
    open.reset();
    --open_now;
  }

 private:
  std::map<std::string, std::unique_ptr<FakeVolume>> volumes_;
};

}  // namespace duplex::nbd
