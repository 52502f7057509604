#ifndef SLIPSTREAM_MPI_H
#define SLIPSTREAM_MPI_H

#include <mpi.h>

#include "slipstream.h"

/* Worlds of MPI's processes. In libslipstream-mpi, which is built against one MPI. */

#ifdef __cplusplus
extern "C" {
#endif

/* The world of a communicator, with its ranks. All of its processes call it, between MPI_Init and
 * MPI_Finalize; the communicator may be freed afterwards. MPI carries an address and a secret, and
 * from there on the workers meet by TCP: MPI may be used beside the world as before. `options` may
 * be NULL. The world is for slip_world_free, which must come before MPI_Finalize where MPI kills
 * whoever ends early. */
slip_status slip_world_from_mpi(MPI_Comm communicator, const slip_world_options* options,
                                slip_world** world);

#ifdef __cplusplus
}
#endif

#endif
