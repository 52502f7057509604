#pragma once

/// NCCL for machines without a GPU: a library with the functions that Slipstream uses, for
/// processes and threads of one machine, on streams of fake_cuda. It is as asynchronous as the real
/// one, and as strict; SLIP_NCCL_LIBRARY names it to the program under test. Its sums are in
/// another order than Slipstream's.
namespace fake_nccl {

/// From the environment, when first asked for.
struct Settings {
  int version = 22809;       // FAKE_NCCL_VERSION
  bool init_hangs = false;   // FAKE_NCCL_INIT_HANGS=1: this process never connects
  bool abort_hangs = false;  // FAKE_NCCL_ABORT_HANGS=1: what is aborted ends, but the call does not
  // Of this process's collectives, from 1 on.
  int hang_at = 0;  // FAKE_NCCL_HANG_AT: that one never begins
  int fail_at = 0;  // FAKE_NCCL_FAIL_AT: that one fails, asynchronously
};

const Settings& settings();

}  // namespace fake_nccl
