package otlp

import (
	"mime"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Form is an encoding of OTLP.
type Form uint8

// The two encodings of OTLP over HTTP.
const (
	Protobuf Form = iota
	JSON
)

// ContentType is the form's media type.
func (f Form) ContentType() string {
	if f == JSON {
		return "application/json"
	}
	return "application/x-protobuf"
}

// ParseContentType finds the form by a Content-Type header, or answers with kind Unsupported.
func ParseContentType(header string) (Form, error) {
	media := header
	if media != Protobuf.ContentType() && media != JSON.ContentType() {
		media, _, _ = mime.ParseMediaType(header)
	}
	switch media {
	case Protobuf.ContentType():
		return Protobuf, nil
	case JSON.ContentType():
		return JSON, nil
	}
	return JSON, errs.E(errs.Unsupported, "content type %q is not supported, %s and %s are",
		header, Protobuf.ContentType(), JSON.ContentType())
}

// Decode decodes msg, an ExportMetricsServiceRequest that Size had no objection to. The result shares nothing with msg.
// The error is of kind Invalid, or TooLarge when attributes are.
func Decode(form Form, msg []byte) (pmetric.Metrics, error) {
	req := pmetricotlp.NewExportRequest()
	var err error
	if form == JSON {
		err = req.UnmarshalJSON(msg)
	} else {
		err = req.UnmarshalProto(msg)
	}
	if err != nil {
		return pmetric.Metrics{}, errs.E(errs.Invalid, "the message of %d bytes is no ExportMetricsServiceRequest: %w",
			len(msg), err)
	}
	md := req.Metrics()
	if len(msg) > maxAttributes {
		err = checkAttributes(md)
	}
	return md, err
}
