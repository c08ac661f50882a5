// The third door: Files. Asynchronous I/O on files and block devices, without allocation.
//
// A File belongs to the core whose Files door opened it and is used only there. An operation
// either finishes inside start() (tmpfs, page cache, the simulator's fast path) or later on the
// same core. An operation moves all its bytes or fails: short transfers are continued below.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "rt/task.h"

namespace duplex::rt {

struct FileOp {
  enum class Kind : uint8_t {
    kRead,         // data.size() bytes at offset; reading past the end is EIO
    kWrite,        // data.size() bytes at offset
    kFlush,        // all writes that ended before the start of this are durable when it succeeds
    kZero,         // the range reads as zeroes afterwards; may unmap it
    kZeroNoUnmap,  // same, but its space stays allocated
    kZeroFast,     // kZero, but EOPNOTSUPP when it would have to write the zeroes
  };
  // Called once on the file's core when start() returned false.
  using Done = void (*)(FileOp&);

  Kind kind = Kind::kRead;
  uint64_t offset = 0;
  std::span<std::byte> data;  // kRead, kWrite; aligned to FileInfo::alignment in address and size
  uint64_t length = 0;        // kZero*
  int error = 0;              // result: 0 or an errno
  Done done = nullptr;
  FileOp* next_op = nullptr;  // owned by the engine while in flight
  uint64_t engine_data = 0;   // owned by the engine while in flight
};

struct FileInfo {
  bool is_block_device = false;
  bool is_direct = false;    // O_DIRECT: offset, size and address must be aligned
  uint32_t alignment = 512;  // bytes; power of two, at most 4096
  uint64_t size = 0;         // bytes at open or at the last refresh()
  std::string path;
  std::string engine;  // "io_uring", "threads", "inline", "simulated": for people
};

class File {
 public:
  // No operation is in flight, or the core is abandoned.
  virtual ~File() = default;

  // True: finished inside the call, op.error is set, op.done was not called.
  // False: op stays alive until op.done was called.
  virtual bool start(FileOp& op) = 0;

  virtual const FileInfo& info() const = 0;
  // Reads the size again (a block device may have grown).
  virtual Task<Result<uint64_t>> refresh() = 0;
  // Sets the size of a regular file; new bytes read as zeroes.
  virtual Task<Result<void>> resize(uint64_t bytes) = 0;
  // Takes the lock that keeps two arrays off one device (flock); kBusy when another has it.
  virtual Result<void> lock() = 0;

  struct Await : FileOp {
    explicit Await(File& f) : file(f) {}
    bool await_ready() const { return false; }
    bool await_suspend(std::coroutine_handle<> h) {
      handle = h;
      done = [](FileOp& op) { static_cast<Await&>(op).handle.resume(); };
      return !file.start(*this);
    }
    // 0 or an errno.
    int await_resume() const { return error; }
    File& file;
    std::coroutine_handle<> handle;
  };
  [[nodiscard]] Await read(uint64_t offset, std::span<std::byte> into) {
    Await op(*this);
    op.kind = FileOp::Kind::kRead;
    op.offset = offset;
    op.data = into;
    return op;
  }
  // `from` is only read; the type is shared with read().
  [[nodiscard]] Await write(uint64_t offset, std::span<const std::byte> from) {
    Await op(*this);
    op.kind = FileOp::Kind::kWrite;
    op.offset = offset;
    op.data = {const_cast<std::byte*>(from.data()), from.size()};
    return op;
  }
  [[nodiscard]] Await flush() {
    Await op(*this);
    op.kind = FileOp::Kind::kFlush;
    return op;
  }
  [[nodiscard]] Await zero(uint64_t offset, uint64_t length,
                           FileOp::Kind kind = FileOp::Kind::kZero) {
    Await op(*this);
    op.kind = kind;
    op.offset = offset;
    op.length = length;
    return op;
  }
};

struct OpenOptions {
  bool write = true;
  bool create = false;  // regular file, durable with its entry; `exclusive`: must not exist
  bool exclusive = false;
  uint64_t create_bytes = 0;  // size of a created file
  bool direct = true;         // O_DIRECT where the file system can; see FileInfo::is_direct
};

class Files {
 public:
  virtual ~Files() = default;
  virtual Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) = 0;
  virtual Task<Result<void>> remove(std::string path) = 0;
};

// The blocking sibling, for the store's own executor and for start-up only (SQLite, mark log,
// lock file). Any thread that may block. Every call returns 0 or an errno unless it says more.
class SyncFile {
 public:
  virtual ~SyncFile() = default;
  // Bytes read, fewer only at the end of the file; or -errno.
  virtual int64_t read(uint64_t offset, std::span<std::byte> into) = 0;
  virtual int write(uint64_t offset, std::span<const std::byte> from) = 0;
  virtual int sync() = 0;
  virtual int truncate(uint64_t bytes) = 0;
  // Size in bytes or -errno. It may count zeroes behind the last byte written, up to a whole block.
  virtual int64_t size() = 0;
  // Exclusive lock for the life of this object; EWOULDBLOCK when another process has it.
  virtual int lock() = 0;
};

class SyncFiles {
 public:
  virtual ~SyncFiles() = default;
  // Null and *error set to an errno on failure.
  virtual std::unique_ptr<SyncFile> open(const std::string& path, bool create, int* error) = 0;
  virtual int remove(const std::string& path) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;
  virtual bool exists(const std::string& path) = 0;
  virtual int make_directories(const std::string& path) = 0;
  // Makes the entries of a directory durable.
  virtual int sync_directory(const std::string& path) = 0;
};

}  // namespace duplex::rt
