package viewer

import (
	"errors"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/promapi"
)

// maxForm bounds the form of a mark, in bytes.
const maxForm = 64 << 10

// Routes are what the viewer serves, below /api/v1/blocks. They are for operators, as blocks are of all tenants.
func (v *Viewer) Routes() []httpx.Route {
	route := func(pattern string, h http.HandlerFunc) httpx.Route {
		return httpx.Route{Pattern: pattern, Class: httpx.Operator, Handler: h}
	}
	routes := []httpx.Route{route("GET /api/v1/blocks", v.serveBlocks), route("GET /api/v1/blocks/rows", v.serveRows),
		route("GET /api/v1/blocks/meta", v.serveMeta)}
	if v.opts.Marks != nil {
		routes = append(routes, route("POST /api/v1/blocks/mark", v.serveMark))
	}
	return routes
}

// blocksInfo is the data of Thanos's answer.
type blocksInfo struct {
	Label       string        `json:"label"`
	Blocks      []*block.Meta `json:"blocks"`
	RefreshedAt time.Time     `json:"refreshedAt"`
	Err         *string       `json:"err"`
}

// serveBlocks answers as Thanos: all blocks in one answer. Their metas are as a view has them (block.View).
func (v *Viewer) serveBlocks(w http.ResponseWriter, r *http.Request) {
	v.allow(w)
	s := v.opts.Source()
	info := blocksInfo{Label: v.opts.Label, Blocks: []*block.Meta{}, RefreshedAt: s.At}
	info.Blocks = append(info.Blocks, blocks(s, r.FormValue("view"))...)
	if text := s.fault(); text != "" {
		info.Err = &text
	}
	httpx.WriteData(w, info)
}

// serveRows answers a part of the blocks in a short form: those from the parameter from on.
func (v *Viewer) serveRows(w http.ResponseWriter, r *http.Request) {
	v.allow(w)
	from, err := promapi.Int(r, "from")
	if err != nil {
		promapi.WriteError(w, err)
		return
	}
	httpx.WriteData(w, v.rows(v.opts.Source(), r.FormValue("view"), from))
}

// serveMeta answers with the meta.json of the block that the parameter id names.
func (v *Viewer) serveMeta(w http.ResponseWriter, r *http.Request) {
	id, err := blockID(r.FormValue("id"))
	if err == nil {
		var m *block.Meta
		if m, err = block.FetchMeta(r.Context(), v.opts.Bucket, id); err == nil {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_ = m.Write(w) // an error means that the client is gone
			return
		}
	}
	promapi.WriteError(w, err)
}

// serveMark marks a block, as Thanos's viewer does: its form has id, action and detail.
func (v *Viewer) serveMark(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := v.mark(r); err != nil {
		promapi.WriteError(w, err)
		return
	}
	httpx.WriteData(w, nil)
}

func (v *Viewer) mark(r *http.Request) error {
	if v.opts.Refuse {
		return errs.E(errs.Forbidden, "Admin operations are disabled")
	}
	if err := httpx.SameOrigin(r); err != nil {
		return err
	}
	if err := r.ParseForm(); err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	action, detail := r.FormValue("action"), r.FormValue("detail")
	id, err := blockID(r.FormValue("id"))
	if err != nil {
		return err
	}
	names, err := block.ObjectsOf(r.Context(), v.opts.Marks, id)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errs.E(errs.NotFound, "there is no block %s", id)
	}
	switch now := time.Now(); action {
	case "":
		return errs.E(errs.Invalid, "Action cannot be empty")
	case "DELETION":
		return block.MarkDeletion(r.Context(), v.opts.Marks, id, detail, now)
	case "NO_COMPACTION":
		return block.MarkNoCompact(r.Context(), v.opts.Marks, id, block.ReasonManual, detail, now)
	}
	return errs.E(errs.Invalid, "not supported marker %q", action)
}

// allow lets pages of other servers read an answer.
func (v *Viewer) allow(w http.ResponseWriter) {
	if v.opts.CORS {
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}
}

var errNoID = errors.New("ID cannot be empty")

func blockID(text string) (ulid.ULID, error) {
	if text == "" {
		return ulid.ULID{}, errs.Wrap(errs.Invalid, errNoID)
	}
	id, ok := block.ParseID(text)
	if !ok || len(text) != ulid.EncodedSize {
		return ulid.ULID{}, errs.E(errs.Invalid, "ULID %q is not valid", text)
	}
	return id, nil
}
