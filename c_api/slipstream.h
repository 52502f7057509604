#ifndef SLIPSTREAM_H
#define SLIPSTREAM_H

/* Slipstream for C (C99) and whatever calls C. The C++ headers (slipstream/slipstream.hpp) say more
 * about how each thing works; here stands how to call it.
 *
 * Failures. A function that can fail returns a slip_status: SLIP_OK, or what went wrong, grouped by
 * what is damaged (slip_damage). slip_last_error() is then one line that says what happened, where,
 * at which rank, and what to do. Nothing here exits, aborts, prints, or lets an exception out. A
 * null handle is SLIP_INVALID_ARGUMENT; functions that return a number or a pointer say below what
 * they return for it.
 *
 * Ownership. What a `_create`, `_connect` or `_launch` made is freed by its `_free`, which takes
 * NULL, too. A world outlives all that was made in it. What neighbours write to (tokens, queues) is
 * freed when they are done with it: after slip_world_fence, or at the very end. Strings and arrays
 * that are passed in are copied, unless it says "kept"; strings that are returned belong to the
 * library.
 *
 * Threads. A handle belongs to one thread at a time; what any thread may call says so. Different
 * handles do not disturb each other, but those of one world belong to that world's thread.
 *
 * Structs that begin with `size` can grow. Fill one with its `_init` function, which sets the
 * defaults, then change what you like. A library that does not know a field of a newer program
 * refuses the call with SLIP_NOT_SUPPORTED, unless the field is zero.
 *
 * Times are seconds. Iterations count from 0. */

#include <stddef.h>
#include <stdint.h>

#include "slipstream/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status: any thread. */

/* What a call came to. */
typedef enum slip_status {
  SLIP_OK = 0,
  /* The operation failed; the caller may go on. */
  SLIP_INVALID_ARGUMENT = 100,
  SLIP_TIMEOUT = 101,
  SLIP_OUT_OF_MEMORY = 102,
  SLIP_NOT_SUPPORTED = 103,
  SLIP_NOT_FOUND = 104,
  SLIP_IO = 105,
  SLIP_BAD_DATA = 106,
  /* One peer is damaged: slip_last_error_peer() says which. */
  SLIP_PEER_LOST = 200,
  SLIP_PEER_MISMATCH = 201,
  /* The group that was averaging. */
  SLIP_GROUP_BROKEN = 300,
  /* The whole world. */
  SLIP_ABORTED = 400,
  SLIP_BOOTSTRAP_FAILED = 401,
  SLIP_STOPPED = 402,
  SLIP_STATUS_ROOM = 0x7fffffff /* no code: room for those of newer libraries */
} slip_status;

enum {
  SLIP_DAMAGE_NONE = 0,
  SLIP_DAMAGE_OPERATION = 1,
  SLIP_DAMAGE_PEER = 2,
  SLIP_DAMAGE_GROUP = 3,
  SLIP_DAMAGE_WORLD = 4
};

/* What `status` damaged: one of SLIP_DAMAGE_*. Also right for codes of newer libraries. */
int slip_damage(slip_status status);
/* "timeout", "peer_lost", ... */
const char* slip_status_name(slip_status status);
/* Of the last call that failed in this thread: its line, never NULL, valid until a call fails in
 * this thread. */
const char* slip_last_error(void);
/* And the peer that it concerns; -1: none. */
int slip_last_error_peer(void);

/* The library's release, "1.2.3"; SLIP_VERSION is that of this header. */
const char* slip_version(void);

/* ---- World: one worker's place among its peers (runtime/world.h). */

/* A worker in its world. Belongs to one thread, but for what says otherwise. */
typedef struct slip_world slip_world;

/* How a world is joined, and how long it waits. */
typedef struct slip_world_options {
  size_t size;
  double join_timeout;   /* for the others to join, and at set-up for what they publish [30] */
  double wait_timeout;   /* of a wait for peers; a straggler is no corpse [600] */
  double peer_timeout;   /* over ucx: a peer that is silent for so long is lost [10] */
  double max_spin;       /* longest busy wait before a worker sleeps [50e-6] */
  const char* transport; /* "auto", "shm", "cuda_ipc", "ucx" or "verbs" ["auto"] */
  int device;            /* SLIP_GPU(0), ...: that this worker is going to use; over verbs it takes
                            the NIC nearest to that, else to its core [SLIP_HOST] */
} slip_world_options;

/* Sets the defaults; `size` is sizeof(slip_world_options). */
void slip_world_options_init(slip_world_options* options, size_t size);

/* Joins the world that the launcher started (`slip run`, `srun --mpi=pmix`, `mpirun`, or by hand
 * SLIP_RENDEZVOUS, SLIP_RANK, SLIP_SIZE); without one it is a world of one. `options` may be NULL.
 */
slip_status slip_world_connect(const slip_world_options* options, slip_world** world);

/* Says goodbye: waits until all workers have come here or are lost. After slip_world_fail or the
 * loss of a peer it waits for nobody. */
void slip_world_free(slip_world* world);

/* Runs `work` as `workers` threads of this process, each in the world that it is given (and does
 * not free), and returns when all have returned. What `work` returns but SLIP_OK ends the others'
 * waits, and is returned. */
slip_status slip_launch(int workers, slip_status (*work)(slip_world* world, void* context),
                        void* context);

int slip_world_rank(const slip_world* world); /* -1 for NULL */
int slip_world_size(const slip_world* world); /* 0 for NULL */

/* Binds the calling thread, and those that it starts, to this worker's core. */
slip_status slip_world_bind(slip_world* world);

/* Blocks until `condition(context)` is not 0, SLIP_TIMEOUT after `seconds` (negative: after
 * wait_timeout). It reads only this worker's memory: queues, tokens, its own variables. `what`
 * completes "waiting for ..." in the error. */
slip_status slip_world_wait_until(slip_world* world, int (*condition)(void* context), void* context,
                                  double seconds, const char* what);

/* Waits until all workers have come here; for set-up and the end, since it is slow. */
slip_status slip_world_fence(slip_world* world);

/* Runs `work(context)`, and lasts at least as long as injected slowness says (slip_trainer_options:
 * compute). Calling the work directly is fine where none is wanted. */
slip_status slip_world_compute(slip_world* world, void (*work)(void* context), void* context);

/* This worker gives up: its waits end, and the others and the launcher are told why. `reason` NULL:
 * slip_last_error(). Call it before slip_world_free after a failure. */
slip_status slip_world_fail(slip_world* world, const char* reason);

/* Ends every wait of this worker. Any thread. */
slip_status slip_world_abort(slip_world* world, const char* reason);

/* SLIP_OK, or why the world was aborted. Any thread. */
slip_status slip_world_status(const slip_world* world);

/* What a worker has done (runtime/counters.h). */
typedef struct slip_counters {
  size_t size;
  uint64_t iteration; /* entered */
  uint64_t iterations_skipped;
  uint64_t compute_ns;
  uint64_t wait_ns; /* for peers */
  uint64_t bytes_sent;
  uint64_t updates_sent;
  uint64_t updates_used;
  uint64_t updates_late; /* too old to be used */
  uint64_t max_gap_seen; /* iterations ahead of the slowest receiver, at most */
} slip_counters;

/* Fills `counters`, of which `size` is set: sizeof(slip_counters). Any thread. */
slip_status slip_world_counters(const slip_world* world, slip_counters* counters);

/* ---- Vectors: of floats or doubles, in the host's memory; a trainer's may be in a GPU's. */

/* The type of a vector's elements. */
typedef enum slip_dtype {
  SLIP_FLOAT32 = 0,
  SLIP_FLOAT64 = 1,
  SLIP_DTYPE_ROOM = 0x7fffffff /* no type: room for those of newer libraries */
} slip_dtype;

/* ---- Trainer: trains one model with its peers (trainer/trainer.h).
 *
 *     while (slip_trainer_running(trainer)) {
 *       compute_gradient(slip_trainer_parameters(trainer), gradient);
 *       if (slip_trainer_step(trainer, gradient) != SLIP_OK) ...
 *     }
 *     slip_trainer_average(trainer); */

/* Belongs to one thread, but for slip_trainer_stop. */
typedef struct slip_trainer slip_trainer;

/* A `device`: the processor, and its memory. */
#define SLIP_HOST 0
/* A `device`: a GPU, which are numbered from 0 as CUDA does in this process. */
#define SLIP_GPU(number) ((number) + 1)

/* A part of the model: `count` elements at `data`, copied in at the start and, after each step,
 * copied back. With null `data` it lives in slip_trainer_parameters() only. All parts have one
 * dtype, and are in one memory. */
typedef struct slip_parameter {
  size_t size; /* sizeof(slip_parameter), in each */
  void* data;  /* kept: valid as long as the trainer */
  size_t count;
  slip_dtype dtype;
  int device; /* SLIP_HOST, or SLIP_GPU(0) and so on */
} slip_parameter;

/* What a model is worth on data that it was not trained on. */
typedef struct slip_evaluation {
  double loss;
  double accuracy; /* 0..1; negative: there is none */
} slip_evaluation;

/* How a trainer learns, and until when. */
typedef struct slip_trainer_options {
  size_t size;
  const char* protocol; /* a name of `slip train --protocol` ["hop"] */
  const char* settings; /* its options, "max_gap=5 backup=1" [""] */
  const char* graph;    /* a name, or a file of lines `from to [weight]` ["ring"] */
  const char* weights;  /* "metropolis" or "uniform"; NULL: what the graph allows [NULL] */

  /* Momentum SGD, where slip_trainer_step is used. */
  double learning_rate; /* [0.1] */
  double momentum;      /* [0] */
  double weight_decay;  /* [0] */
  /* Multiplies the learning rate; NULL: 1. Called in the trainer's thread. */
  double (*schedule)(uint64_t iteration, void* context);

  /* When the run ends: whatever comes first. */
  uint64_t iterations;       /* [UINT64_MAX: nothing bounds them] */
  double seconds;            /* 0: nothing bounds them [0] */
  const char* target_metric; /* "loss" or "accuracy", as evaluated; NULL: none [NULL] */
  double target_value;

  /* Every so many iterations the mean model is evaluated at rank 0, in a thread of its own. */
  uint64_t evaluate_every; /* 0: never [0] */
  void (*evaluate)(const void* parameters, slip_evaluation* result, void* context);

  void* context; /* of the callbacks; kept */

  /* Slowness on purpose, of slip_world_compute: "10ms,jitter=0.05" and "rank=3,x=4", the latter
   * several times with spaces between [NULL: none] */
  const char* compute;
  const char* slow;

  const char* agreed; /* "name=value ...", what else must be the same at all workers [""] */
  uint64_t seed;      /* [1] */
  int own_start;      /* keep each worker's own start instead of rank 0's [0] */
  int reserved;       /* 0 */

  /* With parameters on a GPU: the CUstream or cudaStream_t on which the trainer enqueues its work,
   * and on which gradients are computed. It outlives the trainer [NULL: the default stream] */
  void* stream;
} slip_trainer_options;

/* Sets the defaults; `size` is that of the struct. */
void slip_trainer_options_init(slip_trainer_options* options, size_t size);

/* By all workers with the same options; what differs is named with both ranks and values. */
slip_status slip_trainer_create(slip_world* world, const slip_parameter* parameters, size_t parts,
                                const slip_trainer_options* options, slip_trainer** trainer);
/* After the last iteration it waits for the others to finish theirs. */
void slip_trainer_free(slip_trainer* trainer);

/* 1 until the agreed last iteration is done or something failed: slip_trainer_status() says what.
 */
int slip_trainer_running(slip_trainer* trainer);
/* SLIP_OK, or why it stopped running early. */
slip_status slip_trainer_status(const slip_trainer* trainer);

/* All parameters as one vector, whose address never changes. NULL for NULL. */
void* slip_trainer_parameters(const slip_trainer* trainer);
/* Memory for a gradient of the same layout, which a protocol reads fastest. NULL for NULL. */
void* slip_trainer_gradient(const slip_trainer* trainer);
size_t slip_trainer_count(const slip_trainer* trainer); /* elements */

/* Ends an iteration with this gradient of slip_trainer_count() elements, which may be overwritten:
 * averages with the peers as the protocol says, applies momentum SGD, enters the next iteration. */
slip_status slip_trainer_step(slip_trainer* trainer, void* gradient);
/* The same with the caller's own optimizer, which changes the `count` parameters that it gets. */
slip_status slip_trainer_step_with(slip_trainer* trainer,
                                   void (*apply)(void* parameters, size_t count, void* context),
                                   void* context);

/* After the loop, by all: the mean model, on every rank. */
slip_status slip_trainer_average(slip_trainer* trainer);

/* Asks for the end of the run: all end at the same iteration soon after. Any thread, and signal
 * handlers. */
void slip_trainer_stop(slip_trainer* trainer);

/* Writes this worker's parameters, momentum, iteration and seed to a file. */
slip_status slip_trainer_save(const slip_trainer* trainer, const char* path);
/* Goes on from such a file; before the first `running`. */
slip_status slip_trainer_load(slip_trainer* trainer, const char* path);

uint64_t slip_trainer_iteration(const slip_trainer* trainer); /* that it is in; 0 for NULL */
uint64_t slip_trainer_done(const slip_trainer* trainer);      /* skipped ones counted; 0 for NULL */
/* After the loop: seconds from the common start to this worker's last iteration; 0 for NULL. */
double slip_trainer_elapsed(const slip_trainer* trainer);

/* ---- Partial all-reduce: the mean over any group of workers, at each of them
 * (collectives/partial_all_reduce.h). */

/* Belongs to one thread. */
typedef struct slip_partial_all_reduce slip_partial_all_reduce;

/* How a partial all-reduce works; the same at all workers. */
typedef struct slip_partial_all_reduce_options {
  size_t size;
  const char* algorithm; /* "automatic", "one-shot", "two-shot", "hierarchical", or on GPUs "nccl"
                            ["automatic"] */
  int in_place;          /* a failure may leave anything in the vector; half the memory [0] */
  int bf16;              /* bfloat16 on the wire [0] */
} slip_partial_all_reduce_options;

/* Sets the defaults; `size` is that of the struct. */
void slip_partial_all_reduce_options_init(slip_partial_all_reduce_options* options, size_t size);

/* By every worker that will be in a group, at any time, with the same name, count, dtype and
 * options (NULL: the defaults). */
slip_status slip_partial_all_reduce_create(slip_world* world, const char* name, size_t count,
                                           slip_dtype dtype,
                                           const slip_partial_all_reduce_options* options,
                                           slip_partial_all_reduce** reduce);
/* Its peers must be done with it: after slip_world_fence, or at the very end. */
void slip_partial_all_reduce_free(slip_partial_all_reduce* reduce);

/* This worker's vector of registered memory, zero at first. Unless `in_place` it may be elsewhere
 * after a mean. NULL for NULL. */
void* slip_partial_all_reduce_buffer(const slip_partial_all_reduce* reduce);

/* Optional and early: this worker will be in that group next. */
slip_status slip_partial_all_reduce_announce(slip_partial_all_reduce* reduce, uint64_t sequence,
                                             const int* members, size_t count);

/* Replaces `vector` (NULL: the buffer, which is faster) by the mean of the members' vectors. Every
 * member calls it for every group that it is in, in rising order of sequence (1, 2, ...), the same
 * number at all members; `members` are ranks in ascending order. */
slip_status slip_partial_all_reduce_mean(slip_partial_all_reduce* reduce, uint64_t sequence,
                                         const int* members, size_t count, void* vector);

/* ---- Graph: who sends to whom (trainer/graph.h). Immutable: any thread. */

/* Never changes: any thread. */
typedef struct slip_graph slip_graph;

/* "ring", ... or a file of lines `from to [weight]`. */
slip_status slip_graph_create(const char* name_or_file, int workers, slip_graph** graph);
/* The lists of its neighbours go with it. */
void slip_graph_free(slip_graph* graph);
/* How many neighbours send to `rank`, and their ranks, ascending; these belong to the graph.
 * `ranks` may be NULL. -1 for a null graph or a rank that it does not have. */
int slip_graph_in(const slip_graph* graph, int rank, const int** ranks);
/* The same of those that it sends to. */
int slip_graph_out(const slip_graph* graph, int rank, const int** ranks);

/* ---- Tokens: how far a sender may be ahead of its receivers (runtime/tokens.h). `out` and `in`
 * count the neighbours as slip_graph_out and slip_graph_in list them. */

/* Belongs to one thread. */
typedef struct slip_tokens slip_tokens;

/* By all workers with the same name, graph and max_gap >= 1. */
slip_status slip_tokens_create(slip_world* world, const char* name, const slip_graph* graph,
                               int max_gap, slip_tokens** tokens);
/* Its neighbours must be done with it: after slip_world_fence. */
void slip_tokens_free(slip_tokens* tokens);

/* This worker enters `iteration`; all its reads of updates of earlier ones are complete. */
slip_status slip_tokens_announce(slip_tokens* tokens, uint64_t iteration);
/* Nobody shall wait for this worker any more. */
slip_status slip_tokens_announce_finished(slip_tokens* tokens);
/* 1 if there is a token of every out-neighbour to enter `next`; 0 for NULL. */
int slip_tokens_may_enter(const slip_tokens* tokens, uint64_t next);
/* Tokens of that out-neighbour for a worker in iteration `own`; 0 for NULL or no such neighbour. */
int64_t slip_tokens_count(const slip_tokens* tokens, size_t out, uint64_t own);
/* How far all out-neighbours are ahead of `own`; 0 for NULL. */
uint64_t slip_tokens_lag(const slip_tokens* tokens, uint64_t own);
/* 1 if that out-neighbour is past `iteration`, and has no use for its update; 0 for NULL. */
int slip_tokens_passed(const slip_tokens* tokens, size_t out, uint64_t iteration);

/* ---- Update queue: what neighbours send, in this worker's memory (runtime/update_queue.h). */

/* Belongs to one thread. */
typedef struct slip_update_queue slip_update_queue;

/* How updates travel; the same at all workers. */
typedef struct slip_update_queue_options {
  size_t size;
  size_t chunk_bytes; /* an update travels in chunks of so many [2 MiB] */
  int checksums;      /* 1 or 0 [on where the library was built for debugging] */
  int reserved;       /* 0 */
} slip_update_queue_options;

/* Sets the defaults; `size` is that of the struct. */
void slip_update_queue_options_init(slip_update_queue_options* options, size_t size);

/* By all workers with the same name, graph and options (NULL: the defaults): updates of `bytes`,
 * `depth` of each neighbour at a time. With tokens, depth is max_gap + 1. */
slip_status slip_update_queue_create(slip_world* world, const char* name, const slip_graph* graph,
                                     size_t bytes, int depth,
                                     const slip_update_queue_options* options,
                                     slip_update_queue** queue);
/* Its neighbours must be done with it: after slip_world_fence. */
void slip_update_queue_free(slip_update_queue* queue);

/* Writes the update into the queue of that out-neighbour. Never blocks: tokens say there is room.
 */
slip_status slip_update_queue_enqueue(slip_update_queue* queue, size_t out, uint64_t iteration,
                                      const void* update);
/* 1 if the update of that in-neighbour is here; 0 for NULL or no such neighbour. */
int slip_update_queue_arrived(const slip_update_queue* queue, size_t in, uint64_t iteration);
/* How many updates of that iteration are here; 0 for NULL. */
int slip_update_queue_size(const slip_update_queue* queue, uint64_t iteration);
/* One that has arrived, until the token of the next use of its slot is given; else NULL. */
const void* slip_update_queue_update(const slip_update_queue* queue, size_t in, uint64_t iteration);
/* SLIP_BAD_DATA if an update that has arrived is torn or damaged. */
slip_status slip_update_queue_verify(const slip_update_queue* queue, size_t in, uint64_t iteration);

#ifdef __cplusplus
}
#endif

#endif
