"""The look: a theme with system fonts only, so that nothing is fetched from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

SANS = ("Inter", "-apple-system", "BlinkMacSystemFont", "Segoe UI", "Roboto", "Helvetica Neue",
        "Liberation Sans", "Arial")  # fmt: skip
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")
# One scale of warm greys and one accent, each light to dark; page.css names the same colours.
PAPER, CARD, LINE, QUIET, INK = "#fbfaf7", "#ffffff", "#e4e0d8", "#6a6863", "#1d1e20"
NIGHT, SLATE, SEAM, DIM, CHALK = "#131416", "#1b1d20", "#303338", "#9b9a96", "#ececea"
ACCENT, ACCENT_DARK = "#0c6170", "#6fc3cf"


def theme() -> gr.themes.Base:
    """Return the Gradio theme; everything it cannot say is in ``assets/page/page.css``."""
    import gradio as gr

    base = gr.themes.Base(
        font=[*SANS, "sans-serif"],
        font_mono=list(MONO),
        radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_sm,
        text_size=gr.themes.sizes.text_sm,
    )
    pairs = {
        "body_background_fill": (PAPER, NIGHT),
        "background_fill_primary": (CARD, SLATE),
        "background_fill_secondary": (PAPER, NIGHT),
        "body_text_color": (INK, CHALK),
        "body_text_color_subdued": (QUIET, DIM),
        "border_color_primary": (LINE, SEAM),
        "border_color_accent": (ACCENT, ACCENT_DARK),
        "color_accent_soft": ("#e3eff1", "#1e3236"),
        "link_text_color": (ACCENT, ACCENT_DARK),
        "link_text_color_hover": (ACCENT, ACCENT_DARK),
        "link_text_color_visited": (ACCENT, ACCENT_DARK),
        "link_text_color_active": (ACCENT, ACCENT_DARK),
        "block_background_fill": ("transparent", "transparent"),
        "block_border_width": ("0px", "0px"),
        "block_label_text_color": (QUIET, DIM),
        "block_title_text_color": (QUIET, DIM),
        "block_info_text_color": (QUIET, DIM),
        "block_shadow": ("none", "none"),
        "panel_background_fill": ("transparent", "transparent"),
        "panel_border_width": ("0", "0"),
        "input_background_fill": (CARD, SLATE),
        "input_background_fill_focus": (CARD, SLATE),
        "input_background_fill_hover": (CARD, SLATE),
        "input_border_color": ("#d6d1c7", "#3a3e44"),
        "input_border_color_focus": (ACCENT, ACCENT_DARK),
        "input_shadow_focus": ("none", "none"),
        "input_placeholder_color": ("#a3a09a", "#6d6f72"),
        "button_secondary_background_fill": (CARD, SLATE),
        "button_secondary_background_fill_hover": ("#f3f0ea", "#25282c"),
        "button_secondary_border_color": ("#d6d1c7", "#3a3e44"),
        "button_secondary_border_color_hover": ("#bdb7ab", "#50555c"),
        "button_secondary_text_color": (INK, CHALK),
        "button_secondary_text_color_hover": (INK, CHALK),
        "slider_color": (ACCENT, ACCENT_DARK),
        "loader_color": (ACCENT, ACCENT_DARK),
        "error_text_color": ("#9d2f1c", "#f0957f"),
    }
    values = {name: light for name, (light, _) in pairs.items()}
    values |= {f"{name}_dark": dark for name, (_, dark) in pairs.items()}
    single = {
        "color_accent": ACCENT,
        "block_padding": "0px",
        "block_radius": "6px",
        "block_title_text_size": "12px",
        "block_title_text_weight": "500",
        "block_label_text_size": "12px",
        "block_info_text_size": "12px",
        "input_radius": "6px",
        "input_shadow": "none",
        "input_padding": "7px 10px",
        "input_border_width": "1px",
        "input_text_size": "14px",
        "button_border_width": "1px",
        "button_small_radius": "6px",
        "button_medium_radius": "6px",
        "button_large_radius": "6px",
        "button_secondary_shadow": "none",
        "button_secondary_shadow_hover": "none",
        "button_transition": "background-color 120ms, border-color 120ms",
        "layout_gap": "14px",
        "form_gap_width": "0px",
    }
    return base.set(**values, **single)
