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
			p.log.Warn("this port asks no caller who it is, and another port of this process does; the flag in secured_by "+
				"would make it ask", "port", o.flag, "secured_by", o.askedBy)
		}
		if most.Encrypts && !o.guard.Encrypts {
			p.log.Warn("this port is not encrypted, and another port of this process is; the flag in secured_by would "+
				"encrypt it", "port", o.flag, "secured_by", o.encryptedBy)
		}
	}
}
