package main

import "github.com/hearth-metrics/hearth/internal/httpx"

// port is something that listens.
type port struct {
	flag  string // names the port to people
	guard httpx.Guard
	// encryptedBy is the flag that makes the port speak TLS. askedBy is the flag that makes it ask its callers who they
	// are; "" = it never asks.
	encryptedBy, askedBy string
}

// warnOpenPorts warns of each port that is more open than another port of this process. To lock one port and leave the
// other open locks nothing.
func (p *process) warnOpenPorts() {
	var strictest httpx.Guard
	for _, o := range p.ports {
		strictest.Encrypts = strictest.Encrypts || o.guard.Encrypts
		strictest.Asks = strictest.Asks || o.guard.Asks
	}
	for _, o := range p.ports {
		if strictest.Asks && !o.guard.Asks && o.askedBy != "" {
			p.log.Warn("this port asks no caller who it is, and another port of this process does; the flag in secured_by "+
				"would make it ask", "port", o.flag, "secured_by", o.askedBy)
		}
		if strictest.Encrypts && !o.guard.Encrypts {
			p.log.Warn("this port is not encrypted, and another port of this process is; the flag in secured_by would "+
				"encrypt it", "port", o.flag, "secured_by", o.encryptedBy)
		}
	}
}
