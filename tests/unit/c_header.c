/* The C header is C99; its constants are what C code writes them as. */
#include "slipstream.h"

int c_header_is_c99(void) {
  slip_world_options options;
  slip_world_options_init(&options, sizeof options);
  return SLIP_OK == 0 && SLIP_HOST == 0 && SLIP_GPU(0) == 1 && options.size == sizeof options &&
                 SLIP_DAMAGE_WORLD == 4
             ? 1
             : 0;
}
