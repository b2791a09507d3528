add_test(NAME includes COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/house/includes.sh ${PROJECT_SOURCE_DIR})
add_test(NAME banned COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/house/banned.sh ${PROJECT_SOURCE_DIR})
if(NOT RD_SANITIZE)
    add_test(NAME embedding COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/house/embed.sh ${PROJECT_SOURCE_DIR}
        ${PROJECT_BINARY_DIR})
endif()
