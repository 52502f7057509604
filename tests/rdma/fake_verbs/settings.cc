#include "settings.h"

#include <cstdio>
#include <cstdlib>

#include "stand_in_setting.h"

namespace fake_verbs {
using slip::testing::read_setting;

Settings read_settings() {
  Settings result;
  read_setting("FAKE_VERBS_DEVICES", &result.devices);
  read_setting("FAKE_VERBS_IN_ORDER", &result.in_order);
  read_setting("FAKE_VERBS_DMA_BUF", &result.dma_buf);
  read_setting("FAKE_VERBS_PEERMEM", &result.peermem);
  read_setting("FAKE_VERBS_LOCKS", &result.locks);
  return result;
}

void die(const char* what) {
  std::fprintf(stderr, "fake_verbs: %s\n", what);
  std::abort();
}

}  // namespace fake_verbs
