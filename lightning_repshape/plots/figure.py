"""Figures that show texts as they are: in a class named ``$x^$``, matplotlib would see a broken formula."""

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter


class PlainFigure(Figure):
    """A figure without formulas, but for the powers of ten at the ticks of logarithmic axes."""

    def plain_texts(self) -> None:
        """Keeps the formulas' marks in all texts, whoever wrote them, as they are; to be called before a layout."""
        axes = [axis for panel in self.axes for axis in (panel.xaxis, panel.yaxis)]
        powers = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatter)]
        numbers = {text for axis in powers for text in axis.findobj(Text) if text is not axis.label}
        for text in self.findobj(Text):
            if isinstance(text, Text) and text not in numbers:
                text.set_parse_math(False)

    def draw(self, renderer: RendererBase) -> None:
        """Draws it."""
        self.plain_texts()
        super().draw(renderer)
