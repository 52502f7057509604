// Whether what was put on a stream is done, where several threads put and ask.

#include <gtest/gtest.h>

#include <atomic>

#include "driver.h"
#include "slipstream/transport/stream_marks_internal.h"

namespace slip {
namespace {

void expect_ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }

TEST(StreamMarks, AMarkBeforeTheEndOfAPutSaysNothingOfIt) {
  SLIP_NEEDS_GPU();
  const gpu::Stream stream(0);
  StreamMarks marks([] {});
  std::atomic<bool> may_go{false};
  {
    const StreamMarks::Put put(marks, stream);
    (void)marks.passed(stream);  // as another thread may ask
    expect_ok(stream.synchronize());
    expect_ok(
        stream.then([](void* go) { static_cast<std::atomic<bool>*>(go)->wait(false); }, &may_go));
  }
  EXPECT_FALSE(marks.passed(stream));
  may_go = true;
  may_go.notify_all();
  expect_ok(stream.synchronize());
  EXPECT_TRUE(marks.passed(stream));
}

}  // namespace
}  // namespace slip
