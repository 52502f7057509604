! Workers fit the line y = 2 x - 1, each from samples of its own:
!
!     slip run -n 4 -- fit_line
program fit_line
  use slipstream
  implicit none

  ! Slope and intercept: the trainer's own memory, which it writes in each step. (Of an array that is
  ! not a pointer, a compiler would assume that nobody else writes it.)
  real(c_double), pointer :: line(:)
  character(kind=c_char, len=20), target :: settings
  type(slip_parameter) :: parameters(1)
  type(slip_trainer_options) :: options
  type(c_ptr) :: world, trainer
  real(c_double) :: gradient(2), x, error
  integer :: rank, samples

  call check(slip_world_connect(c_null_ptr, world), c_null_ptr)
  rank = slip_world_rank(world)

  settings = 'max_gap=5 backup=1' // c_null_char
  call slip_trainer_options_init(options, c_sizeof(options))
  options%settings = c_loc(settings)
  options%learning_rate = 0.2_c_double
  options%iterations = 400
  parameters(1) = slip_parameter(c_sizeof(parameters(1)), c_null_ptr, 2, slip_float64, 0)
  call check(slip_trainer_create(world, parameters, 1_c_size_t, options, trainer), world)
  call c_f_pointer(slip_trainer_parameters(trainer), line, [2])

  samples = 0
  do while (slip_trainer_running(trainer) /= 0)
    ! Points spread over [-1, 1], other ones at each worker.
    samples = samples + 1
    x = 2 * modulo(0.618_c_double * samples + 0.25_c_double * rank, 1.0_c_double) - 1
    error = line(1) * x + line(2) - (2 * x - 1)
    gradient = [error * x, error]
    call check(slip_trainer_step(trainer, gradient), world)
  end do
  call check(slip_trainer_status(trainer), world)
  call check(slip_trainer_average(trainer), world)

  if (rank == 0) then
    print '(i0, a, f5.2, a, f5.2)', slip_world_size(world), ' workers: y = ', line(1), ' x ', line(2)
  end if
  call slip_trainer_free(trainer)
  call slip_world_free(world)

contains

  subroutine check(status, failed_world)
    integer(c_int), intent(in) :: status
    type(c_ptr), intent(in) :: failed_world
    if (status == slip_ok) return
    print '(2a)', 'fit_line: ', last_error()
    if (c_associated(failed_world)) then
      if (slip_world_fail(failed_world, c_null_ptr) /= slip_ok) continue
    end if
    error stop
  end subroutine
end program
