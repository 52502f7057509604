! What Fortran needs of slipstream.h to train: the same names, types and order.
module slipstream
  use, intrinsic :: iso_c_binding
  implicit none

  integer(c_int), parameter :: slip_ok = 0
  integer(c_int), parameter :: slip_float32 = 0, slip_float64 = 1

  type, bind(c) :: slip_parameter
    integer(c_size_t) :: size
    type(c_ptr) :: data
    integer(c_size_t) :: count
    integer(c_int) :: dtype
    integer(c_int) :: device
  end type

  type, bind(c) :: slip_trainer_options
    integer(c_size_t) :: size
    type(c_ptr) :: protocol, settings, graph, weights
    real(c_double) :: learning_rate, momentum, weight_decay
    type(c_funptr) :: schedule
    integer(c_int64_t) :: iterations
    real(c_double) :: seconds
    type(c_ptr) :: target_metric
    real(c_double) :: target_value
    integer(c_int64_t) :: evaluate_every
    type(c_funptr) :: evaluate
    type(c_ptr) :: context, compute, slow, agreed
    integer(c_int64_t) :: seed
    integer(c_int) :: own_start, reserved
    type(c_ptr) :: stream
  end type

  interface
    function slip_world_connect(options, world) bind(c) result(status)
      import
      type(c_ptr), value :: options
      type(c_ptr), intent(out) :: world
      integer(c_int) :: status
    end function

    subroutine slip_world_free(world) bind(c)
      import
      type(c_ptr), value :: world
    end subroutine

    pure function slip_world_rank(world) bind(c) result(rank)
      import
      type(c_ptr), value, intent(in) :: world
      integer(c_int) :: rank
    end function

    pure function slip_world_size(world) bind(c) result(size)
      import
      type(c_ptr), value, intent(in) :: world
      integer(c_int) :: size
    end function

    function slip_world_fail(world, reason) bind(c) result(status)
      import
      type(c_ptr), value :: world, reason
      integer(c_int) :: status
    end function

    function slip_last_error() bind(c) result(message)
      import
      type(c_ptr) :: message
    end function

    subroutine slip_trainer_options_init(options, size) bind(c)
      import
      type(slip_trainer_options), intent(out) :: options
      integer(c_size_t), value :: size
    end subroutine

    function slip_trainer_create(world, parameters, parts, options, trainer) bind(c) result(status)
      import
      type(c_ptr), value :: world
      type(slip_parameter), intent(in) :: parameters(*)
      integer(c_size_t), value :: parts
      type(slip_trainer_options), intent(in) :: options
      type(c_ptr), intent(out) :: trainer
      integer(c_int) :: status
    end function

    subroutine slip_trainer_free(trainer) bind(c)
      import
      type(c_ptr), value :: trainer
    end subroutine

    function slip_trainer_running(trainer) bind(c) result(running)
      import
      type(c_ptr), value :: trainer
      integer(c_int) :: running
    end function

    function slip_trainer_status(trainer) bind(c) result(status)
      import
      type(c_ptr), value :: trainer
      integer(c_int) :: status
    end function

    pure function slip_trainer_parameters(trainer) bind(c) result(parameters)
      import
      type(c_ptr), value, intent(in) :: trainer
      type(c_ptr) :: parameters
    end function

    function slip_trainer_step(trainer, gradient) bind(c) result(status)
      import
      type(c_ptr), value :: trainer
      real(c_double), intent(inout) :: gradient(*)
      integer(c_int) :: status
    end function

    function slip_trainer_average(trainer) bind(c) result(status)
      import
      type(c_ptr), value :: trainer
      integer(c_int) :: status
    end function

    pure function strlen(text) bind(c) result(length)
      import
      type(c_ptr), value, intent(in) :: text
      integer(c_size_t) :: length
    end function
  end interface

contains

  ! slip_last_error() as Fortran's own text.
  function last_error() result(text)
    character(:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    type(c_ptr) :: message
    integer :: i
    message = slip_last_error()
    call c_f_pointer(message, letters, [strlen(message)])
    allocate (character(size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function
end module
