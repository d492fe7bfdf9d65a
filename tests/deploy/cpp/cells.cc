// Reads rows "theta phi ex ey ez x y z" (rad, mm) and writes the flat cell of the point x y z for a
// particle that enters at ex ey ez, then the point turned into the mesh frame and back.
// Arguments: n_r n_phi n_z cell_r cell_z.
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "caloforge.h"

int main(int, char** argv) {
  const caloforge::Mesh mesh(std::size_t(std::atoi(argv[1])), std::size_t(std::atoi(argv[2])),
                             std::size_t(std::atoi(argv[3])), std::atof(argv[4]),
                             std::atof(argv[5]));
  caloforge::Particle p;
  caloforge::Vector v;
  while (std::cin >> p.theta >> p.phi >> p.entrance.x >> p.entrance.y >> p.entrance.z >> v.x >>
         v.y >> v.z) {
    const caloforge::Frame frame(p);
    const caloforge::Vector local = frame.to_local(v), back = frame.to_global(local);
    std::printf("%lld %.17g %.17g %.17g\n", static_cast<long long>(mesh.cell(local)), back.x,
                back.y, back.z);
  }
}
