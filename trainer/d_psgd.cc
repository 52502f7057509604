#include "slipstream/trainer/d_psgd.h"

namespace slip {

SLIP_PROTOCOL(DPsgd)

}  // namespace slip
