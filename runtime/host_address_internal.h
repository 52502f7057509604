#pragma once

#include <string>

#pragma GCC visibility push(hidden)

namespace slip {

/// An address by which other hosts reach this one: that of the network interface SLIP_INTERFACE;
/// without it the one that this host's name stands for, if an interface has it, else that of the
/// first interface that is up and no loopback. Throws Error that says which there are.
std::string address_of_this_host();

}  // namespace slip

#pragma GCC visibility pop
