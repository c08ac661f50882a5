// The asynchronous files of a simulated core: latency, order of completion and faults are drawn
// from the seed.
#include <fmt/format.h>

#include <cerrno>

#include "base/assert.h"
#include "sim/core.h"

namespace duplex::sim {
namespace {

class SimFile;

// An operation in flight, kept in FileOp::engine_data as an index of the file's table.
struct InFlight {
  rt::FileOp* op = nullptr;
  uint64_t change = 0;  // of a write or zero
  uint64_t flush_point = 0;
  int error = 0;
  bool torn = false;
};

class SimFile final : public rt::File {
 public:
  SimFile(Machine& machine, SimExecutor& executor, DiskFile& file, rt::FileInfo info)
      : machine_(machine), executor_(executor), file_(file), info_(std::move(info)) {}
  ~SimFile() override {
    if (file_.locked_by == this) file_.locked_by = nullptr;
  }

  bool start(rt::FileOp& op) override;
  const rt::FileInfo& info() const override { return info_; }
  rt::Task<Result<uint64_t>> refresh() override {
    info_.size = file_.size();
    co_return info_.size;
  }
  rt::Task<Result<void>> resize(uint64_t bytes) override {
    file_.truncate(bytes);
    info_.size = bytes;
    co_return Result<void>();
  }
  Result<void> lock() override {
    if (file_.locked_by != nullptr && file_.locked_by != this) {
      return fail(Code::kBusy, info_.path + " is in use by another process",
                  "stop the other array, or use another device");
    }
    file_.locked_by = this;
    return {};
  }

 private:
  int draw_error(const rt::FileOp& op);
  bool lacks_space(const rt::FileOp& op) const;
  void begin(InFlight& flight);
  void finish(InFlight& flight);
  void check_alignment(const rt::FileOp& op) const;
  static void on_done(void* object, uint64_t argument);

  Machine& machine_;
  SimExecutor& executor_;
  DiskFile& file_;
  rt::FileInfo info_;
  std::vector<InFlight> flights_;
  std::vector<uint64_t> free_;
};

bool is_zeroing(rt::FileOp::Kind kind) {
  return kind == rt::FileOp::Kind::kZero || kind == rt::FileOp::Kind::kZeroNoUnmap ||
         kind == rt::FileOp::Kind::kZeroFast;
}

// What a real device would refuse, the simulator takes as a bug of the caller.
void SimFile::check_alignment(const rt::FileOp& op) const {
  if (op.kind != rt::FileOp::Kind::kRead && op.kind != rt::FileOp::Kind::kWrite) return;
  ASSERT(op.offset % info_.alignment == 0);
  ASSERT(op.data.size() % info_.alignment == 0 && !op.data.empty());
  ASSERT(reinterpret_cast<uintptr_t>(op.data.data()) % info_.alignment == 0);
}

bool SimFile::lacks_space(const rt::FileOp& op) const {
  if (!file_.faults.full || op.kind != rt::FileOp::Kind::kWrite) return false;
  for (uint64_t page = op.offset / kPage; page * kPage < op.offset + op.data.size(); ++page) {
    if (!file_.holds_page(page)) return true;
  }
  return false;
}

int SimFile::draw_error(const rt::FileOp& op) {
  const DiskFaults& faults = file_.faults;
  Simulation& simulation = machine_.simulation();
  if (faults.gone) return ENXIO;
  if (lacks_space(op)) return ENOSPC;
  const auto hit = [&](double probability, const char* what) {
    if (probability <= 0 || !simulation.faults().chance(probability)) return 0;
    simulation.count(what);
    return EIO;
  };
  switch (op.kind) {
    case rt::FileOp::Kind::kRead:
      return op.offset + op.data.size() > file_.size() ? EIO : hit(faults.read_error, "read error");
    case rt::FileOp::Kind::kWrite:
      return hit(faults.write_error, "write error");
    case rt::FileOp::Kind::kFlush:
      return hit(faults.flush_error, "flush error");
    default:
      return hit(faults.zero_error, "zero error");
  }
}

void SimFile::begin(InFlight& flight) {
  const rt::FileOp& op = *flight.op;
  flight.error = draw_error(op);
  if (op.kind == rt::FileOp::Kind::kWrite) flight.change = file_.begin_write(op.offset, op.data);
  if (is_zeroing(op.kind)) flight.change = file_.begin_zero(op.offset, op.length);
  if (op.kind == rt::FileOp::Kind::kFlush) flight.flush_point = file_.flush_point();
}

void SimFile::finish(InFlight& flight) {
  rt::FileOp& op = *flight.op;
  Simulation& simulation = machine_.simulation();
  if (file_.faults.gone) flight.error = ENXIO;
  op.error = flight.error;
  simulation.trace(op.offset ^ static_cast<uint64_t>(op.error) ^
                   (static_cast<uint64_t>(op.kind) << 56));
  if (op.kind == rt::FileOp::Kind::kRead && op.error == 0) file_.read(op.offset, op.data);
  if (flight.change != 0) {
    if (op.error == 0) {
      file_.end_change(flight.change, true);
    } else if (op.error == EIO) {
      file_.tear_change(flight.change, simulation.disk());
    } else {
      file_.end_change(flight.change, false);
    }
  }
  if (op.kind != rt::FileOp::Kind::kFlush) return;
  if (op.error == 0) {
    if (!file_.faults.lying_flush) file_.flush(flight.flush_point);
    return;
  }
  // A failed flush: what was unflushed may be gone, and the kernel says so only once.
  if (file_.has_unflushed()) {
    simulation.count(file_.lose_cache(simulation.disk()));
    if (file_.faults.cache_lost != nullptr) file_.faults.cache_lost(file_.faults.object);
  }
}

bool SimFile::start(rt::FileOp& op) {
  check_alignment(op);
  Simulation& simulation = machine_.simulation();
  uint64_t index = 0;
  if (free_.empty()) {
    index = flights_.size();
    flights_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  flights_[index] = {.op = &op};
  begin(flights_[index]);
  if (simulation.disk().chance(0.1)) {  // as on tmpfs: finished inside the call
    finish(flights_[index]);
    free_.push_back(index);
    return true;
  }
  rt::Micros latency =
      simulation.disk().skewed(op.kind == rt::FileOp::Kind::kFlush ? 60 : 10, 3000);
  if (file_.faults.slow > 0 && simulation.faults().chance(file_.faults.slow)) {
    simulation.count("slow disk");
    latency = simulation.faults().skewed(10 * rt::kMillisecond, 5 * rt::kSecond);
  }
  op.engine_data = index;
  simulation.at(
      simulation.now() + latency,
      {.fire = &SimFile::on_done, .object = this, .argument = index, .owner = &executor_});
  return false;
}

void SimFile::on_done(void* object, uint64_t argument) {
  auto& self = *static_cast<SimFile*>(object);
  rt::FileOp* op = self.flights_[argument].op;
  self.finish(self.flights_[argument]);
  self.free_.push_back(argument);
  self.executor_.enter(
      [](void* done) { static_cast<rt::FileOp*>(done)->done(*static_cast<rt::FileOp*>(done)); },
      op);
}

}  // namespace

rt::Task<Result<std::unique_ptr<rt::File>>> SimFiles::open(std::string path,
                                                           rt::OpenOptions options) {
  DiskFile* file = machine_.disk().find(path);
  if (file != nullptr && file->faults.gone)
    co_return std::unexpected(system_error(ENOENT, "open " + path, "check the path"));
  if (file != nullptr && options.create && options.exclusive)
    co_return std::unexpected(system_error(EEXIST, "open " + path));
  if (file == nullptr) {
    if (!options.create)
      co_return std::unexpected(system_error(ENOENT, "open " + path, "check the path"));
    file = &machine_.disk().create(path, options.create_bytes);
    file->entry_durable = true;
  }
  rt::FileInfo info;
  info.is_block_device = file->block_device();
  info.is_direct = true;
  info.alignment = 4096;
  info.size = file->size();
  info.path = path;
  info.engine = "simulated";
  co_return std::make_unique<SimFile>(machine_, executor_, *file, std::move(info));
}

rt::Task<Result<void>> SimFiles::remove(std::string path) {
  if (machine_.disk().find(path) == nullptr)
    co_return std::unexpected(system_error(ENOENT, "remove " + path));
  machine_.disk().remove(path);
  co_return Result<void>();
}

}  // namespace duplex::sim
