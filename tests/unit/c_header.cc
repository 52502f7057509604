// The C header is C++, too, and its functions have C's names.
#include "slipstream.h"

bool c_header_is_cpp() { return slip_damage(SLIP_ABORTED) == SLIP_DAMAGE_WORLD; }
