package httpx

// Guard is what a listener asks of its callers.
type Guard struct {
	// Encrypts reports whether it speaks TLS.
	Encrypts bool
	// Asks reports whether callers must prove who they are for more than open routes: by a user's password or token, or by
	// a client certificate.
	Asks bool
}

// Guard is what a listener with this configuration of TLS asks. The files are not read.
func (o TLSOptions) Guard() Guard {
	return Guard{Encrypts: o.enabled(), Asks: o.ClientCAFile != ""}
}

// Guard is what the server asks of its callers now. Before the files of Auth have been read, their settings do not
// count.
func (s *Server) Guard() Guard {
	g := s.opts.TLS.Guard()
	if c := s.opts.Auth.webConfig(); s.opts.WebConfig && c != nil {
		g.Encrypts = c.file.TLSConfig.IsEnabled()
	}
	g.Asks = s.opts.Auth.TellsApart() || s.lock.wantsPassword() || s.lock.wantsCertificate()
	return g
}
