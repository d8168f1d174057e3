// What crosses the border to Python, as the compiler sees it. Python's ctypes cannot read C++: it writes arguments and
// structs where its own tables say. So the library describes itself, and ../cpp_library.py compares before the first call.
#pragma once

#include <cstddef>
#include <sstream>
#include <string>
#include <type_traits>

// int64, float32, void*, int64[2], or a struct's own NAME. `const` is left out: it changes no layout.
template <typename T> std::string type_name() {
    if constexpr (std::is_pointer_v<T>) return type_name<std::remove_cv_t<std::remove_pointer_t<T>>>() + "*";
    else if constexpr (std::is_array_v<T>)
        return type_name<std::remove_extent_t<T>>() + "[" + std::to_string(std::extent_v<T>) + "]";
    else if constexpr (std::is_enum_v<T>) return type_name<std::underlying_type_t<T>>();
    else if constexpr (std::is_void_v<T>) return "void";
    else if constexpr (std::is_floating_point_v<T>) return "float" + std::to_string(8 * sizeof(T));
    else if constexpr (std::is_integral_v<T>) return (std::is_signed_v<T> ? "int" : "uint") + std::to_string(8 * sizeof(T));
    else return T::NAME;
}

// One line for each thing: "name: value". `static`, as a process may load two builds of the library, which would share it.
static std::string& description() {
    static std::string text;
    return text;
}

static bool describe(const std::string& name, const std::string& value) {
    description() += name + ": " + value + "\n";
    return true;
}

// `text` is the parameter list as it stands in the source: the names come from there, the types from the compiler.
template <typename Result, typename... Parameters>
static bool describe_function(const char* name, Result (*)(Parameters...), const char* text) {
    std::istringstream parameters(text);
    auto next_name = [&] {
        std::string parameter;
        std::getline(parameters, parameter, ',');
        return parameter.substr(parameter.find_last_of(" *&") + 1);
    };
    std::string value = type_name<Result>() + "(";
    ((value += (value.back() == '(' ? "" : ", ") + type_name<Parameters>() + " " + next_name()), ...);
    return describe(name, value + ")");
}

// The head of a function that Python calls: FUNCTION(name, parameters...) { body }.
#define FUNCTION(name, ...)                                                                      \
    extern "C" void name(__VA_ARGS__);                                                           \
    static const bool name##_is_described = describe_function(#name, &name, #__VA_ARGS__);       \
    void name(__VA_ARGS__)

// A member that is not told makes the size wrong, so none is forgotten.
#define STRUCT(type) static const bool type##_is_described = describe(type::NAME, std::to_string(sizeof(type)) + " bytes")
#define MEMBER(type, member)                                                                     \
    static const bool type##_##member##_is_described =                                           \
        describe(std::string(type::NAME) + "." #member,                                          \
                 type_name<decltype(type::member)>() + " at " + std::to_string(offsetof(type, member)))

#define CONSTANT(name) static const bool name##_is_described = describe(#name, std::to_string(name))

extern "C" const char* library_description() { return description().c_str(); }
