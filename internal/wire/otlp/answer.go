package otlp

import (
	"encoding/json"
	"strings"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Accepted is the body of an answer to a request that was stored except for rejected data points. The text says why, or
// warns when none was rejected. Without a text rejected is 0.
func Accepted(form Form, rejected int, text string) []byte {
	resp := pmetricotlp.NewExportResponse()
	if rejected > 0 || text != "" {
		resp.PartialSuccess().SetRejectedDataPoints(int64(rejected))
		resp.PartialSuccess().SetErrorMessage(strings.ToValidUTF8(text, "\uFFFD"))
	}
	var body []byte
	if form == JSON {
		body, _ = resp.MarshalJSON() // there is nothing in it that cannot be marshaled
	} else {
		body, _ = resp.MarshalProto()
	}
	return body
}

// Refused is the body of an answer to a request of which nothing was stored, or that is to be sent again as a whole: a
// google.rpc.Status.
func Refused(form Form, kind errs.Kind, text string) []byte {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if form == JSON {
		body, _ := json.Marshal(struct {
			Code    uint32 `json:"code"`
			Message string `json:"message"`
		}{kind.GRPCCode(), text})
		return body
	}
	body := protowire.AppendTag(nil, 1, protowire.VarintType)
	body = protowire.AppendVarint(body, uint64(kind.GRPCCode()))
	body = protowire.AppendTag(body, 2, protowire.BytesType)
	return protowire.AppendString(body, text)
}
