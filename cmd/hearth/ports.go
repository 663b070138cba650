package main

import "github.com/hearth-metrics/hearth/internal/httpx"

// port is something that listens.
type port struct {
	flag  string // names the port to people
	guard httpx.Guard
	// encryptedBy and askedBy are flags that make the port speak TLS, and ask its callers who they are; "" = it never
	// asks.
	encryptedBy, askedBy string
}

// warnUneven warns of each port that is more open than another one of this process: whoever locks one port and leaves
// the other as it was has locked nothing.
func (p *process) warnUneven() {
	var most httpx.Guard
	for _, o := range p.ports {
		most.Encrypts = most.Encrypts || o.guard.Encrypts
		most.Asks = most.Asks || o.guard.Asks
	}
	for _, o := range p.ports {
		if most.Asks && !o.guard.Asks && o.askedBy != "" {
			p.log.Warn("another port asks its callers who they are; that does not cover this port", "port", o.flag,
				"secured_by", o.askedBy)
		}
		if most.Encrypts && !o.guard.Encrypts {
			p.log.Warn("another port is encrypted; that does not cover this port", "port", o.flag, "secured_by", o.encryptedBy)
		}
	}
}
