// Replies: gathered over one turn of the core, sent with one call.
#include "nbd/replies.h"

#include "base/bytes.h"

namespace duplex::nbd {
namespace {

constexpr size_t kMaxParts = 1024;  // IOV_MAX

}  // namespace

void Connection::encode_simple(Reply& reply, const Request& request, Errno error) {
  store_be(reply.head.data(), kSimpleReplyMagic);
  store_be(reply.head.data() + 4, static_cast<uint32_t>(error));
  store_be(reply.head.data() + 8, request.cookie);
  reply.head_bytes = 16;
}

void Connection::encode_chunk(Reply& reply, const Request& request, Chunk type, uint16_t flags,
                              uint32_t length) {
  store_be(reply.head.data(), kStructuredReplyMagic);
  store_be(reply.head.data() + 4, flags);
  store_be(reply.head.data() + 6, static_cast<uint16_t>(type));
  store_be(reply.head.data() + 8, request.cookie);
  store_be(reply.head.data() + 16, length);
  reply.head_bytes = 20;
}

void Connection::enqueue(Reply& reply) {
  reply.next = nullptr;
  (last_reply_ != nullptr ? last_reply_->next : first_reply_) = &reply;
  last_reply_ = &reply;
  if (!sending_) plan_flush();
}

void Connection::plan_flush() {
  if (flush_planned_) return;
  flush_planned_ = true;
  send_idle_.reset();
  core_.defer(flush_work_);
}

// Sends everything that is queued, at most kMaxParts pieces at a time. Runs as work of its own.
void Connection::flush() {
  flush_planned_ = false;
  while (!sending_ && first_reply_ != nullptr && !gone_) {
    parts_.clear();
    sending_first_ = first_reply_;
    Reply* last = nullptr;
    for (Reply* reply = first_reply_; reply != nullptr && parts_.size() + 2 <= kMaxParts;
         reply = reply->next) {
      parts_.push_back({reply->head.data(), reply->head_bytes});
      if (!reply->body.empty()) parts_.push_back({reply->body.data(), reply->body.size()});
      last = reply;
    }
    first_reply_ = std::exchange(last->next, nullptr);
    if (first_reply_ == nullptr) last_reply_ = nullptr;
    send_op_.parts = parts_.data();
    send_op_.part_count = static_cast<int>(parts_.size());
    sending_ = true;
    if (stream_->start_send(send_op_)) send_ended(send_op_.result);
  }
  if (!sending_ && !flush_planned_) send_idle_.set();
}

// The send under way is over: its requests may end. Never resumes them here (rt/executor.h).
void Connection::send_ended(int64_t result) {
  sending_ = false;
  for (Reply* reply = std::exchange(sending_first_, nullptr); reply != nullptr;) {
    Reply* next = reply->next;
    core_.post(*reply->waiter);
    reply = next;
  }
  if (result != 0) end();
  if (first_reply_ != nullptr) plan_flush();
  if (!flush_planned_) send_idle_.set();
}

// The peer is gone: whoever waits to send goes on at once.
void Connection::drop_replies() {
  for (Reply* reply = std::exchange(first_reply_, nullptr); reply != nullptr;) {
    Reply* next = reply->next;
    core_.post(*reply->waiter);
    reply = next;
  }
  last_reply_ = nullptr;
}

}  // namespace duplex::nbd
