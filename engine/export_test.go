package engine

// Poison fills what a session would find left over from a run before: every value that is not constant, and scratch.
func (s *Session) Poison(b byte) {
	for _, mem := range [][]byte{s.arena, s.scratch} {
		for i := range mem {
			mem[i] = b
		}
	}
}

// Work is what a run costs, as the limits count it.
func (m *Model) Work() (w int64) {
	for _, st := range m.steps {
		s := site(m.graph, st.node, m.float, m.info)
		s.Out = types(st.node.Outputs, m.info)
		w += min(nodeWork(s), 1<<50)
	}
	return w
}
