package rpc

import (
	"regexp"
	"slices"
	"strings"
)

// connectReasons translates messages of the gRPC library about failed connections into what a person can do. detail
// keeps the library's own reason, which names the certificate.
var connectReasons = []struct {
	contains, text string
	detail         bool
}{
	{contains: "first record does not look like a TLS handshake",
		text: "it does not speak TLS: --grpc-client-tls-secure is set here, and --grpc-server-tls-cert is not set there"},
	{contains: "certificate required",
		text: "it wants to see a certificate: set --grpc-client-tls-cert and --grpc-client-tls-key, signed by its " +
			"--grpc-server-tls-client-ca"},
	{contains: "valid for",
		text:   "its certificate is for another name: set --grpc-client-server-name, or make one for this address",
		detail: true},
	{contains: "doesn't contain any IP SANs",
		text:   "its certificate is for another name: set --grpc-client-server-name, or make one for this address",
		detail: true},
	{contains: "x509:", text: "its certificate is not accepted: compare --grpc-client-tls-ca here and " +
		"--grpc-server-tls-cert there", detail: true},
	{contains: "remote error: tls:",
		text: "it does not accept this process's certificate: compare --grpc-client-tls-cert here and " +
			"--grpc-server-tls-client-ca there", detail: true},
	{contains: "error reading server preface",
		text: "it closes the connection: it may want TLS (--grpc-client-tls-secure here), or the port is not its gRPC port"},
	{contains: "broken pipe", text: closedText}, {contains: "connection reset by peer", text: closedText},
	{contains: "connection refused", text: "nothing listens there (connection refused)"},
	{contains: "no route to host", text: "there is no way to this address (no route to host)"},
}

const closedText = "it closed the connection: it has stopped, or does not accept this process's certificate " +
	"(--grpc-client-tls-cert here, --grpc-server-tls-client-ca there)"

// libraryPrefix is what the library writes before the reason why there is no connection.
var libraryPrefix = regexp.MustCompile(`^.*desc = "(?:transport: )?`)

// fromConnection are parts of messages that are about the connection, not about what was asked.
var fromConnection = []string{
	"connection error: desc", "error reading server preface", "broken pipe", "connection reset by peer",
}

// plainMessage is the message of a status as a person can use it.
func plainMessage(message string) string {
	if !slices.ContainsFunc(fromConnection, func(part string) bool { return strings.Contains(message, part) }) {
		return message
	}
	reason := strings.TrimSuffix(libraryPrefix.ReplaceAllString(message, ""), `"`)
	for _, w := range connectReasons {
		if strings.Contains(message, w.contains) {
			if w.detail {
				return w.text + " (" + reason + ")"
			}
			return w.text
		}
	}
	return reason
}
