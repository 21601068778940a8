# cmake -D COMMAND="mpirun ..." -D PATTERN=regex -P expect_failure.cmake: the command must fail and say so.
separate_arguments(command UNIX_COMMAND "${COMMAND}")
execute_process(COMMAND ${command} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output TIMEOUT 60)
if(result EQUAL 0)
  message(FATAL_ERROR "the command ended with status 0:\n${output}")
endif()
if(NOT output MATCHES "${PATTERN}")
  message(FATAL_ERROR "no line matches ${PATTERN}:\n${output}")
endif()
