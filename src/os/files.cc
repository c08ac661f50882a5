// Files of one reactor. How each file is read and written is decided when it is opened:
//   tmpfs         inside the call: io_uring would only hand it to a kernel thread
//   page cache    (no O_DIRECT) tried inside the call without blocking, else by the engine
//   O_DIRECT      by the engine
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "os/reactor.h"

namespace duplex::os {
namespace {

enum class Path : uint8_t { kInline, kCached, kEngine };

class OsFile final : public rt::File {
 public:
  OsFile(int fd, Path path, Engine& engine, rt::FileInfo info)
      : fd_(fd), path_(path), engine_(engine), info_(std::move(info)) {}
  ~OsFile() override { close(fd_); }

  bool start(rt::FileOp& op) override {
    set_file_fd(op, fd_);
    if (path_ == Path::kInline) {
      op.error = run_blocking(op, fd_);
      return true;
    }
    if (path_ == Path::kCached && try_cached(op)) return true;
    engine_.submit(op);
    return false;
  }

  const rt::FileInfo& info() const override { return info_; }
  rt::Task<Result<uint64_t>> refresh() override;
  rt::Task<Result<void>> resize(uint64_t bytes) override;
  Result<void> lock() override;

 private:
  // True when the page cache could do all of it at once.
  bool try_cached(rt::FileOp& op) {
    const bool read = op.kind == rt::FileOp::Kind::kRead;
    if (!read && op.kind != rt::FileOp::Kind::kWrite) return false;
    const iovec part{op.data.data(), op.data.size()};
    const auto offset = static_cast<off_t>(op.offset);
    const ssize_t moved = read ? preadv2(fd_, &part, 1, offset, RWF_NOWAIT)
                               : pwritev2(fd_, &part, 1, offset, RWF_NOWAIT);
    if (moved > 0) add_done(op, static_cast<uint32_t>(moved));
    if (bytes_done(op) != op.data.size()) {
      set_file_fd(op, fd_);  // from the start again
      return false;
    }
    op.error = 0;
    return true;
  }

  const int fd_;
  const Path path_;
  Engine& engine_;
  rt::FileInfo info_;
};

Result<uint64_t> size_of(int fd, bool block_device, const std::string& path) {
  if (block_device) {
    uint64_t bytes = 0;
    if (ioctl(fd, BLKGETSIZE64, &bytes) != 0)
      return std::unexpected(system_error(errno, "read the size of " + path));
    return bytes;
  }
  struct stat status{};
  if (fstat(fd, &status) != 0) return std::unexpected(system_error(errno, "stat " + path));
  return static_cast<uint64_t>(status.st_size);
}

rt::Task<Result<uint64_t>> OsFile::refresh() {
  auto size = size_of(fd_, info_.is_block_device, info_.path);
  if (size) info_.size = *size;
  co_return size;
}

rt::Task<Result<void>> OsFile::resize(uint64_t bytes) {
  if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0)
    co_return std::unexpected(system_error(errno, "resize " + info_.path));
  info_.size = bytes;
  co_return Result<void>();
}

Result<void> OsFile::lock() {
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return {};
  if (errno != EWOULDBLOCK) return std::unexpected(system_error(errno, "lock " + info_.path));
  return fail(Code::kBusy, fmt::format("{} is in use by another process", info_.path),
              "stop the other array, or use another device");
}

bool is_tmpfs(int fd) {
  struct statfs status{};
  return fstatfs(fd, &status) == 0 &&
         (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

// Alignment O_DIRECT asks for: a block device's own, else 4096.
uint32_t direct_alignment(int fd, bool block_device) {
  int logical = 0;
  if (block_device && ioctl(fd, BLKSSZGET, &logical) == 0 && logical > 0)
    return static_cast<uint32_t>(logical);
  return 4096;
}

Result<int> open_descriptor(const std::string& path, const rt::OpenOptions& options, bool& direct) {
  // Asked before the open, which would wait at a pipe until somebody writes into it.
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    return fail(Code::kInvalid, path + " is neither a file nor a block device");
  int flags = (options.write ? O_RDWR : O_RDONLY) | O_CLOEXEC;
  if (options.create) flags |= O_CREAT;
  if (options.create && options.exclusive) flags |= O_EXCL;
  int fd = -1;
  direct = options.direct;
  if (direct) fd = ::open(path.c_str(), flags | O_DIRECT, 0600);
  if (fd < 0 && (!direct || errno == EINVAL)) {
    direct = false;
    // O_EXCL: a failed O_DIRECT open may have made the file (open(2), BUGS); it is ours then.
    fd = ::open(path.c_str(), options.direct ? flags & ~O_EXCL : flags, 0600);
  }
  if (fd < 0) {
    const int error = errno;
    const std::string next = error == EACCES   ? "run as a user who may open it"
                             : error == ENOENT ? "check the path"
                                               : "";
    return std::unexpected(system_error(error, "open " + path, next));
  }
  return fd;
}

// A file that was made survives a power cut only when its directory has been flushed too.
int sync_parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return error;
}

// Gives a file of no bytes its size, and makes size and entry durable.
int finish_creation(int fd, uint64_t bytes, const std::string& path) {
  if (bytes > 0 && ftruncate(fd, static_cast<off_t>(bytes)) != 0) return errno;
  if (fsync(fd) != 0) return errno;
  return sync_parent(path);
}

}  // namespace

rt::Task<Result<std::unique_ptr<rt::File>>> OsFiles::open(std::string path,
                                                          rt::OpenOptions options) {
  bool direct = false;
  CO_TRY_ASSIGN(const int fd, open_descriptor(path, options, direct));
  struct stat status{};
  fstat(fd, &status);
  rt::FileInfo info;
  info.is_block_device = S_ISBLK(status.st_mode);
  info.path = path;
  if (options.create && !info.is_block_device && status.st_size == 0) {
    if (const int error = finish_creation(fd, options.create_bytes, path); error != 0) {
      close(fd);
      unlink(path.c_str());
      co_return std::unexpected(system_error(error, "create " + path));
    }
  }
  auto size = size_of(fd, info.is_block_device, path);
  if (!size) {
    close(fd);
    co_return std::unexpected(size.error());
  }
  info.size = *size;
  Path how = direct ? Path::kEngine : Path::kCached;
  // The node of a block device lies on devtmpfs, which calls itself tmpfs; the device does not.
  if (!info.is_block_device && is_tmpfs(fd)) how = Path::kInline;
  info.is_direct = direct && how == Path::kEngine;
  info.alignment = info.is_direct ? direct_alignment(fd, info.is_block_device) : 1;
  info.engine = how == Path::kInline ? "inline" : reactor_.engine().name();
  co_return std::make_unique<OsFile>(fd, how, reactor_.engine(), std::move(info));
}

rt::Task<Result<void>> OsFiles::remove(std::string path) {
  if (unlink(path.c_str()) != 0) co_return std::unexpected(system_error(errno, "remove " + path));
  co_return Result<void>();
}

}  // namespace duplex::os
