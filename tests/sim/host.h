// Host: one client machine of a volume, in two forms: straight on the Volume object (fast, most
// runs) or through the NBD front door. Workloads use it and do not care which.
//
// Thread: the core given at construction (for the direct form the volume's own reactor).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "rt/task.h"
#include "rt/world.h"
#include "sim/nbd_client.h"
#include "volume/volume.h"

namespace duplex::simtest {

// What a request came to, as a host sees it.
enum class Outcome { kDone, kError, kGone };

class Host {
 public:
  virtual ~Host() = default;
  virtual uint64_t size_bytes() const = 0;
  virtual rt::Task<Outcome> read(uint64_t offset, std::span<std::byte> into) = 0;
  virtual rt::Task<Outcome> write(uint64_t offset, std::span<const std::byte> from, bool fua) = 0;
  virtual rt::Task<Outcome> zero(uint64_t offset, uint64_t length, bool fua, bool no_hole) = 0;
  virtual rt::Task<Outcome> trim(uint64_t offset, uint64_t length) = 0;
  virtual rt::Task<Outcome> flush() = 0;
  virtual rt::Task<> close() = 0;
};

class DirectHost : public Host {
 public:
  // `exports` outlives the host. Opened by open() on the control core.
  DirectHost(volume::Exports& exports, rt::Core& control) : exports_(exports), control_(control) {}
  rt::Task<bool> open(std::string name);

  uint64_t size_bytes() const override { return open_->volume().size_bytes(); }
  rt::Task<Outcome> read(uint64_t offset, std::span<std::byte> into) override;
  rt::Task<Outcome> write(uint64_t offset, std::span<const std::byte> from, bool fua) override;
  rt::Task<Outcome> zero(uint64_t offset, uint64_t length, bool fua, bool no_hole) override;
  rt::Task<Outcome> trim(uint64_t offset, uint64_t length) override;
  rt::Task<Outcome> flush() override;
  rt::Task<> close() override;
  rt::Core& core() { return open_->volume().core(); }
  bool is_read_only() const { return open_->read_only(); }
  // A request failed, and not because the pool was full.
  bool had_fault() const { return had_fault_; }

 private:
  Outcome told(const Result<void>& result);
  volume::Exports& exports_;
  rt::Core& control_;
  std::unique_ptr<volume::OpenVolume> open_;
  bool is_cut_off_ = false;  // by an operator: nothing is asked any more
  bool had_fault_ = false;
};

class NbdHost : public Host {
 public:
  explicit NbdHost(rt::Core& core) : client_(core) {}
  rt::Task<bool> open(rt::Address address, std::string name) {
    return client_.connect(std::move(address), std::move(name));
  }

  uint64_t size_bytes() const override { return client_.size_bytes(); }
  rt::Task<Outcome> read(uint64_t offset, std::span<std::byte> into) override;
  rt::Task<Outcome> write(uint64_t offset, std::span<const std::byte> from, bool fua) override;
  rt::Task<Outcome> zero(uint64_t offset, uint64_t length, bool fua, bool no_hole) override;
  rt::Task<Outcome> trim(uint64_t offset, uint64_t length) override;
  rt::Task<Outcome> flush() override;
  rt::Task<> close() override;

 private:
  NbdClient client_;
};

}  // namespace duplex::simtest
