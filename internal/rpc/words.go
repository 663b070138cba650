package rpc

import (
	"regexp"
	"slices"
	"strings"
)

// connectWords are what the gRPC library says of a connection that does not come about, by what a person can do about
// it. detail keeps the library's own reason, which names the certificate.
var connectWords = []struct {
	theirs, ours string
	detail       bool
}{
	{theirs: "first record does not look like a TLS handshake",
		ours: "it does not speak TLS: --grpc-client-tls-secure is set here, and --grpc-server-tls-cert is not set there"},
	{theirs: "certificate required",
		ours: "it wants to see a certificate: set --grpc-client-tls-cert and --grpc-client-tls-key, signed by its " +
			"--grpc-server-tls-client-ca"},
	{theirs: "valid for",
		ours:   "its certificate is for another name: set --grpc-client-server-name, or make one for this address",
		detail: true},
	{theirs: "doesn't contain any IP SANs",
		ours:   "its certificate is for another name: set --grpc-client-server-name, or make one for this address",
		detail: true},
	{theirs: "x509:", ours: "its certificate is not accepted: compare --grpc-client-tls-ca here and " +
		"--grpc-server-tls-cert there", detail: true},
	{theirs: "remote error: tls:",
		ours: "it does not accept this process's certificate: compare --grpc-client-tls-cert here and " +
			"--grpc-server-tls-client-ca there", detail: true},
	{theirs: "error reading server preface",
		ours: "it closes the connection: it may want TLS (--grpc-client-tls-secure here), or the port is not its gRPC port"},
	{theirs: "broken pipe", ours: closed}, {theirs: "connection reset by peer", ours: closed},
	{theirs: "connection refused", ours: "nothing listens there (connection refused)"},
	{theirs: "no route to host", ours: "there is no way to this address (no route to host)"},
}

const closed = "it closed the connection: it has stopped, or does not accept this process's certificate " +
	"(--grpc-client-tls-cert here, --grpc-server-tls-client-ca there)"

// wrapping is what the library puts around the reason why there is no connection.
var wrapping = regexp.MustCompile(`^.*desc = "(?:transport: )?`)

// fromConnection are parts of messages that are about the connection, not about what was asked.
var fromConnection = []string{"connection error: desc", "error reading server preface", "broken pipe", "connection reset by peer"}

// plainMessage is the message of a status as a person can use it.
func plainMessage(message string) string {
	if !slices.ContainsFunc(fromConnection, func(part string) bool { return strings.Contains(message, part) }) {
		return message
	}
	reason := strings.TrimSuffix(wrapping.ReplaceAllString(message, ""), `"`)
	for _, w := range connectWords {
		if strings.Contains(message, w.theirs) {
			if w.detail {
				return w.ours + " (" + reason + ")"
			}
			return w.ours
		}
	}
	return reason
}
