// What the sample multiplies by.
#pragma once
constexpr double FACTOR = 2.0;
