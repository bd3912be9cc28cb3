// See context.h: everything that is needed of Gloo is declared there.
#pragma once

#include "gloo/context.h"
