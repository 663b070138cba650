package server

import "testing"

// A process whose first port is the last of the range goes on at the range's start: it never gives a port twice before
// it has given all others, since a port that was given may not be listened on yet.
func TestPortsWrap(t *testing.T) {
	p := portRange{next: lastPort - 1}
	seen := map[int]bool{}
	for range lastPort - firstPort {
		port := p.step()
		if seen[port] || port < firstPort || port > lastPort {
			t.Fatalf("port %d after %d others", port, len(seen))
		}
		seen[port] = true
	}
}
