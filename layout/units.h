// Units: the atoms of a mesh in runs that a reshard need not take apart, so that a search over layouts has few things to
// place: with data=4096 split from [data, -] to [-, data], the twelve atoms of data are one unit.
#pragma once

#include "meshard/layout/layout.h"

namespace meshard {

// Every atom of the mesh is in one unit. Atoms of one unit are consecutive in both layouts, or where they split no
// dimension they are free or pending alike, in ascending order. On meshes of up to `few` atoms each is a unit by itself.
std::vector<Atoms> find_units(const Mesh& mesh, const Layout& from, const Layout& to, int few);

}  // namespace meshard
