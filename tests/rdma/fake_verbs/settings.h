#pragma once

/// A libibverbs for machines without RDMA: a library with the functions that Slipstream uses, among
/// the processes of a host. Queue pairs are sockets, and a thread of each process is its devices'
/// engine: it writes memory that peers may write while the process computes, and it is as strict as
/// devices are. What would overrun a queue there ends the process here. SLIP_VERBS_LIBRARY names it
/// to the program under test.
namespace fake_verbs {

/// From the environment, anew for each device that is opened.
struct Settings {
  int devices = 2;        // FAKE_VERBS_DEVICES: rxe0, rxe1, ... on one network; 0: none
  bool in_order = false;  // FAKE_VERBS_IN_ORDER=1: what comes is in memory at once, in order. Else
                          // not before a completion at the receiver, and backwards: no more is
                          // promised
  bool dma_buf = true;    // FAKE_VERBS_DMA_BUF=0: the kernel has none
  bool peermem = false;   // FAKE_VERBS_PEERMEM=1: memory of GPUs is registered as the host's
  bool locks = false;     // FAKE_VERBS_LOCKS=1: what is registered counts as locked
};

Settings read_settings();

/// The program under test did what no device allows.
[[noreturn]] void die(const char* what);

}  // namespace fake_verbs
