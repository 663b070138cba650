package httpx

// Guard is what a listener asks of whoever connects to it.
type Guard struct {
	// Encrypts reports that it speaks TLS.
	Encrypts bool
	// Asks reports that it serves more than its open routes only to callers that prove who they are: by a user's password
	// or token, or by a client certificate.
	Asks bool
}

// Guard is what the files say that are used for this configuration of TLS. They are not read.
func (o TLSOptions) Guard() Guard {
	return Guard{Encrypts: o.enabled(), Asks: o.ClientCAFile != ""}
}

// Guard is what the server asks of its callers now. Before the files of Auth have been read it knows of none of their
// settings.
func (s *Server) Guard() Guard {
	g := s.opts.TLS.Guard()
	if c := s.opts.Auth.webConfig(); s.opts.WebConfig && c != nil {
		g.Encrypts = c.file.TLSConfig.IsEnabled()
	}
	g.Asks = s.opts.Auth.TellsApart() || s.lock.wantsPassword() || s.lock.wantsCertificate()
	return g
}
