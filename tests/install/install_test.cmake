function(run what)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE out ERROR_VARIABLE out RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} failed with status ${status}:\n${out}")
  endif()
  set(out "${out}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
run("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/first)
# Nothing installed may point to where it was installed first.
file(RENAME ${SCRATCH}/first ${SCRATCH}/prefix)

run("configure" ${CMAKE_COMMAND} -G ${GENERATOR} -S ${PROJECT} -B ${SCRATCH}/build -D CMAKE_BUILD_TYPE=Release
  -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix -D PROGRAM=${PROGRAM}
  "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wno-missing-field-initializers -Werror")
run("build" ${CMAKE_COMMAND} --build ${SCRATCH}/build)
file(STRINGS ${SCRATCH}/build/CMakeCache.txt at REGEX "^meshard_DIR:")
if(NOT at MATCHES "=${SCRATCH}/prefix/")
  message(FATAL_ERROR "find_package took another meshard: ${at}")
endif()

run("train_mlp" ${SCRATCH}/build/train_mlp)
message("${out}")
# One sum over model forward, the loss, and the gradients over data; the losses fall.
foreach(pattern "all_reduce +model +2 " "all_reduce +data +2 " "step    0  loss 0.[1-9][0-9]+\n" "step 1000  loss 0.00[0-9]+\n")
  if(NOT out MATCHES "${pattern}")
    message(FATAL_ERROR "the output of train_mlp lacks \"${pattern}\"")
  endif()
endforeach()

run("the installed command" ${SCRATCH}/prefix/bin/meshard plan --model gpt-tiny --plan ${SCRATCH}/prefix/share/meshard/plans/tensor.plan
  --mesh "data=2, model=2" --batch 4 --seq 16)
if(NOT out MATCHES "busiest device receives [1-9][0-9,]* bytes a step")
  message(FATAL_ERROR "meshard plan printed no bill:\n${out}")
endif()
file(REMOVE_RECURSE ${SCRATCH})
