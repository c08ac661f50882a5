// Groups: names for one or more mirrors (Fig 8).
#include <fmt/format.h>

#include "base/text.h"
#include "mirror/mirrors_impl.h"

namespace duplex::mirror {

Result<GroupInfo> MirrorsImpl::group(const std::string& name) const {
  const auto found = groups_.find(name);
  if (found == groups_.end()) {
    return fail(Code::kNoName, fmt::format("there is no group {}", name), "duplex group list");
  }
  GroupInfo info{.name = name, .mirrors = {}};
  for (const MirrorId id : found->second) info.mirrors.push_back(with(id)->row.name);
  return info;
}

std::vector<GroupInfo> MirrorsImpl::groups() const {
  std::vector<GroupInfo> all;
  for (const auto& [name, members] : groups_) all.push_back(*group(name));
  return all;
}

Result<std::set<MirrorId>> MirrorsImpl::ids_of(const std::vector<std::string>& mirrors) const {
  std::set<MirrorId> ids;
  for (const std::string& name : mirrors) {
    TRY_ASSIGN(const Mirror* const mirror, find(name));
    ids.insert(mirror->row.id);
  }
  return ids;
}

rt::Task<Result<GroupInfo>> MirrorsImpl::put_group(std::string name, std::set<MirrorId> members) {
  meta::Transaction transaction;
  transaction.push_back(
      meta::PutGroup{{.name = name, .mirrors = {members.begin(), members.end()}}});
  CO_TRY(co_await parts_.store.commit(std::move(transaction)));
  groups_[name] = std::move(members);
  co_return group(name);
}

rt::Task<Result<bool>> MirrorsImpl::create_group(std::string name,
                                                 std::vector<std::string> mirrors) {
  CO_TRY(check_name(name, "group"));
  const Turn turn = co_await turn_.lock();
  CO_TRY_ASSIGN(std::set<MirrorId> members, ids_of(mirrors));
  if (const auto same = groups_.find(name); same != groups_.end()) {
    if (same->second == members) co_return false;
    co_return fail(Code::kExists, fmt::format("group {} exists with other members", name),
                   "duplex group show " + name);
  }
  if (find(name)) {
    co_return fail(Code::kExists, fmt::format("{} is the name of a mirror", name),
                   "choose another name");
  }
  if (parts_.volumes.info(name)) {
    co_return fail(Code::kExists, fmt::format("{} is the name of a volume", name),
                   "choose another name");
  }
  CO_TRY(co_await put_group(std::move(name), std::move(members)));
  co_return true;
}

rt::Task<Result<GroupInfo>> MirrorsImpl::add_to_group(std::string name,
                                                      std::vector<std::string> mirrors) {
  const Turn turn = co_await turn_.lock();
  CO_TRY(group(name));
  CO_TRY_ASSIGN(std::set<MirrorId> members, ids_of(mirrors));
  members.insert(groups_.at(name).begin(), groups_.at(name).end());
  co_return co_await put_group(std::move(name), std::move(members));
}

rt::Task<Result<GroupInfo>> MirrorsImpl::remove_from_group(std::string name,
                                                           std::vector<std::string> mirrors) {
  const Turn turn = co_await turn_.lock();
  CO_TRY(group(name));
  CO_TRY_ASSIGN(const std::set<MirrorId> leaving, ids_of(mirrors));
  std::set<MirrorId> members = groups_.at(name);
  for (const MirrorId id : leaving) {
    if (members.erase(id) > 0) continue;
    co_return fail(Code::kNoName,
                   fmt::format("mirror {} is not in group {}", with(id)->row.name, name),
                   "duplex group show " + name);
  }
  co_return co_await put_group(std::move(name), std::move(members));
}

rt::Task<Result<void>> MirrorsImpl::delete_group(std::string name) {
  const Turn turn = co_await turn_.lock();
  CO_TRY(group(name));
  meta::Transaction transaction;
  transaction.push_back(meta::DropGroup{name});
  CO_TRY(co_await parts_.store.commit(std::move(transaction)));
  groups_.erase(name);
  co_return Result<void>();
}

}  // namespace duplex::mirror
