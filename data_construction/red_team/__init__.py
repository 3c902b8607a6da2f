"""Strong red-team (Eq. 9-10, App. F): M1 forensics, M2 intent, M3 plan, M4 simulation with a success filter."""
