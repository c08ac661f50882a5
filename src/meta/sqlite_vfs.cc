#include "meta/sqlite_vfs.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/planted_bug.h"
#include "base/units.h"

namespace duplex::meta {
namespace {

constexpr int kSectorBytes = 4096;
// SQLite writes a frame of the WAL in two calls; one commit becomes one write when they are
// gathered. Larger transactions go out in pieces of this size.
constexpr size_t kGatherBytes = 256 * kKiB;

// Covers the number of the page, so that a page written to the wrong place is found as well.
uint64_t page_seal(uint64_t offset, std::span<const std::byte> page) {
  std::byte place[sizeof(uint64_t)];
  store_le<uint64_t>(place, offset / kPageBytes);
  return crc32c(page.first(kPageBytes - kPageReservedBytes), crc32c(place));
}
bool is_page(uint64_t offset, size_t length) {
  return length == kPageBytes && offset % kPageBytes == 0;
}
// SQLite may leave pages of its free list unwritten: zeroes are no page of any table.
bool page_is_whole(uint64_t offset, std::span<const std::byte> page) {
  const auto stored = load_le<uint64_t>(page.data() + kPageBytes - kPageReservedBytes);
  return stored == page_seal(offset, page) || is_zero(page);
}

bool lacks_space(int errnum) { return errnum == ENOSPC || errnum == EDQUOT; }

}  // namespace

std::string parent_directory(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// One open file. Adjacent writes to the WAL are gathered and written when something else is asked
// for; every error of theirs is reported by that call, at the latest by the flush of the commit.
class SqliteVfs::OpenFile {
 public:
  enum class Kind { kDatabase, kWal, kOther };

  OpenFile(SqliteVfs& vfs, std::unique_ptr<rt::SyncFile> file, std::string path, Kind kind,
           bool created)
      : vfs_(vfs), file_(std::move(file)), path_(std::move(path)), kind_(kind), created_(created) {}

  int read(uint64_t offset, std::span<std::byte> into) {
    if (const int rc = write_gathered(); rc != SQLITE_OK) return rc;
    const int64_t got = file_->read(offset, into);
    if (got < 0) return SQLITE_IOERR_READ;
    const auto length = static_cast<size_t>(got);
    if (length == into.size()) {
      const bool sealed = kind_ == Kind::kDatabase && is_page(offset, length);
      return sealed && !page_is_whole(offset, into) ? SQLITE_CORRUPT : SQLITE_OK;
    }
    std::memset(into.data() + length, 0, into.size() - length);
    return SQLITE_IOERR_SHORT_READ;
  }

  int write(uint64_t offset, std::span<const std::byte> from) {
    if (kind_ == Kind::kDatabase && is_page(offset, from.size())) return write_page(offset, from);
    if (kind_ != Kind::kWal) return write_through(offset, from);
    if (offset != gathered_at_ + gathered_.size() ||
        gathered_.size() + from.size() > kGatherBytes) {
      if (const int rc = write_gathered(); rc != SQLITE_OK) return rc;
    }
    if (gathered_.empty()) gathered_at_ = offset;
    gathered_.insert(gathered_.end(), from.begin(), from.end());
    return SQLITE_OK;
  }

  int truncate(uint64_t bytes) {
    if (const int rc = write_gathered(); rc != SQLITE_OK) return rc;
    if (dead()) return SQLITE_IOERR_TRUNCATE;
    return vfs_.outcome(file_->truncate(bytes), "truncate", path_, SQLITE_IOERR_TRUNCATE);
  }

  int sync() {
    if (const int rc = write_gathered(); rc != SQLITE_OK) return rc;
    if (dead()) return SQLITE_IOERR_FSYNC;
    if constexpr (planted(Bug::kCommitWithoutSync)) return SQLITE_OK;
    // Lack of space found by a flush has lost writes: a failure like any other here.
    const auto flushed = [&](int errnum, const char* act, int code) {
      return vfs_.outcome(lacks_space(errnum) ? EIO : errnum, act, path_, code);
    };
    if (const int rc = flushed(file_->sync(), "flush", SQLITE_IOERR_FSYNC); rc != SQLITE_OK) {
      return rc;
    }
    if (!created_) return SQLITE_OK;
    const int errnum = vfs_.files_.sync_directory(parent_directory(path_));
    const int rc = flushed(errnum, "flush the directory of", SQLITE_IOERR_DIR_FSYNC);
    created_ = rc != SQLITE_OK;
    return rc;
  }

  int size(sqlite3_int64* bytes) {
    if (const int rc = write_gathered(); rc != SQLITE_OK) return rc;
    const int64_t got = file_->size();
    if (got < 0) return SQLITE_IOERR_FSTAT;
    *bytes = got;
    return SQLITE_OK;
  }

 private:
  bool dead() const { return !vfs_.failure_.empty(); }
  int write_page(uint64_t offset, std::span<const std::byte> from) {
    std::byte page[kPageBytes];
    std::memcpy(page, from.data(), kPageBytes);
    store_le<uint64_t>(page + kPageBytes - kPageReservedBytes, page_seal(offset, from));
    return write_through(offset, page);
  }
  int write_through(uint64_t offset, std::span<const std::byte> from) {
    if (dead()) return SQLITE_IOERR_WRITE;
    return vfs_.outcome(file_->write(offset, from), "write", path_, SQLITE_IOERR_WRITE);
  }
  // What could not be written is dropped: SQLite rolls back and writes it anew, or never.
  int write_gathered() {
    if (gathered_.empty()) return SQLITE_OK;
    const int rc = write_through(gathered_at_, gathered_);
    gathered_.clear();
    return rc;
  }

  SqliteVfs& vfs_;
  std::unique_ptr<rt::SyncFile> file_;
  const std::string path_;
  const Kind kind_;
  bool created_;  // and its directory entry not flushed yet
  std::vector<std::byte> gathered_;
  uint64_t gathered_at_ = 0;
};

// The C functions SQLite calls. SQLite reserves szOsFile bytes for a Handle and owns them.
struct SqliteVfs::Methods {
  struct Handle : sqlite3_file {
    OpenFile* open;
  };
  static OpenFile& file(sqlite3_file* f) { return *static_cast<Handle*>(f)->open; }
  static SqliteVfs& vfs(sqlite3_vfs* v) { return *static_cast<SqliteVfs*>(v->pAppData); }

  static int close(sqlite3_file* f) {
    delete static_cast<Handle*>(f)->open;
    return SQLITE_OK;
  }
  static int read(sqlite3_file* f, void* into, int amount, sqlite3_int64 offset) {
    return file(f).read(static_cast<uint64_t>(offset),
                        {static_cast<std::byte*>(into), static_cast<size_t>(amount)});
  }
  static int write(sqlite3_file* f, const void* from, int amount, sqlite3_int64 offset) {
    return file(f).write(static_cast<uint64_t>(offset),
                         {static_cast<const std::byte*>(from), static_cast<size_t>(amount)});
  }
  static int truncate(sqlite3_file* f, sqlite3_int64 bytes) {
    return file(f).truncate(static_cast<uint64_t>(bytes));
  }
  static int sync(sqlite3_file* f, int) { return file(f).sync(); }
  static int size(sqlite3_file* f, sqlite3_int64* bytes) { return file(f).size(bytes); }
  static int lock(sqlite3_file*, int) { return SQLITE_OK; }
  static int check_reserved(sqlite3_file*, int* reserved) {
    *reserved = 0;
    return SQLITE_OK;
  }
  static int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector_size(sqlite3_file*) { return kSectorBytes; }
  // A torn write damages nothing outside its own range, as SQLite's own VFS assumes: without it
  // every commit would be padded to a whole sector.
  static int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  static constexpr sqlite3_io_methods kIo = [] {
    sqlite3_io_methods io{};
    io.iVersion = 1;
    io.xClose = &close;
    io.xRead = &read;
    io.xWrite = &write;
    io.xTruncate = &truncate;
    io.xSync = &sync;
    io.xFileSize = &size;
    io.xLock = &lock;
    io.xUnlock = &lock;
    io.xCheckReservedLock = &check_reserved;
    io.xFileControl = &control;
    io.xSectorSize = &sector_size;
    io.xDeviceCharacteristics = &characteristics;
    return io;
  }();

  static int open(sqlite3_vfs* v, const char* path, sqlite3_file* f, int flags, int* out_flags) {
    f->pMethods = nullptr;
    if (path == nullptr) return SQLITE_CANTOPEN;  // temporary files: temp_store is memory
    SqliteVfs& self = vfs(v);
    const bool create = (flags & SQLITE_OPEN_CREATE) != 0;
    const bool created = create && !self.files_.exists(path);
    if (created && !self.failure_.empty()) return SQLITE_CANTOPEN;
    int errnum = 0;
    auto opened = self.files_.open(path, create, &errnum);
    if (opened == nullptr) return lacks_space(errnum) ? SQLITE_FULL : SQLITE_CANTOPEN;
    const OpenFile::Kind kind = (flags & SQLITE_OPEN_MAIN_DB) != 0 ? OpenFile::Kind::kDatabase
                                : (flags & SQLITE_OPEN_WAL) != 0   ? OpenFile::Kind::kWal
                                                                   : OpenFile::Kind::kOther;
    static_cast<Handle*>(f)->open = new OpenFile(self, std::move(opened), path, kind, created);
    f->pMethods = &kIo;
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs* v, const char* path, int sync_directory) {
    SqliteVfs& self = vfs(v);
    if (!self.failure_.empty()) return SQLITE_IOERR_DELETE;
    const int errnum = self.files_.remove(path);
    if (errnum == ENOENT) return SQLITE_IOERR_DELETE_NOENT;
    if (const int rc = self.outcome(errnum, "remove", path, SQLITE_IOERR_DELETE); rc != SQLITE_OK) {
      return rc;
    }
    if (sync_directory == 0) return SQLITE_OK;
    return self.outcome(self.files_.sync_directory(parent_directory(path)),
                        "flush the directory of", path, SQLITE_IOERR_DIR_FSYNC);
  }
  static int access(sqlite3_vfs* v, const char* path, int, int* result) {
    *result = vfs(v).files_.exists(path) ? 1 : 0;
    return SQLITE_OK;
  }
  static int full_path(sqlite3_vfs*, const char* path, int capacity, char* out) {
    const size_t length = std::strlen(path) + 1;
    if (length > static_cast<size_t>(capacity)) return SQLITE_CANTOPEN;
    std::memcpy(out, path, length);
    return SQLITE_OK;
  }
  static int randomness(sqlite3_vfs*, int amount, char* out) {
    std::memset(out, 0, static_cast<size_t>(amount));
    return amount;
  }
  static int sleep(sqlite3_vfs*, int) { return 0; }
  static int current_time(sqlite3_vfs*, double* julian_day) {
    *julian_day = 0;
    return SQLITE_OK;
  }
  static int last_error(sqlite3_vfs*, int, char*) { return 0; }
};

SqliteVfs::SqliteVfs(rt::SyncFiles& files) : files_(files) {
  static std::atomic<uint64_t> last_number = 0;
  name_ = fmt::format("duplex-{}", ++last_number);
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(Methods::Handle);
  vfs_.mxPathname = 4096;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = &Methods::open;
  vfs_.xDelete = &Methods::remove;
  vfs_.xAccess = &Methods::access;
  vfs_.xFullPathname = &Methods::full_path;
  vfs_.xRandomness = &Methods::randomness;
  vfs_.xSleep = &Methods::sleep;
  vfs_.xCurrentTime = &Methods::current_time;
  vfs_.xGetLastError = &Methods::last_error;
  const int rc = sqlite3_vfs_register(&vfs_, 0);
  ASSERT(rc == SQLITE_OK);
}

SqliteVfs::~SqliteVfs() { sqlite3_vfs_unregister(&vfs_); }

int SqliteVfs::outcome(int errnum, const char* act, const std::string& path, int code) {
  if (errnum == 0) return SQLITE_OK;
  if (lacks_space(errnum)) return SQLITE_FULL;
  if (failure_.empty()) failure_ = system_error(errnum, fmt::format("{} {}", act, path)).message();
  return code;
}

}  // namespace duplex::meta
