// The C++ headers raise no warnings in users' programs.
#include "slipstream/slipstream.hpp"
