import os

from lightning_repshape import __version__

project = "lightning-repshape"
author = "The lightning-repshape maintainers"
copyright = "2026, the lightning-repshape maintainers"
release = version = __version__

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of notebooks: small networks are slower with more
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

# Tutorials are notebooks that the build executes; what has not changed since the last build is kept beside it.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds a cell
nb_output_stderr = "remove"  # Lightning's words on the machine

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"lightning-repshape {release}"
